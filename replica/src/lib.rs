//! A regional read replica: follows the committed stream, waits for bookmarks, forwards writes.
