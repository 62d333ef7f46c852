//! D1 JSON in and out.
