//! D1's JSON.
