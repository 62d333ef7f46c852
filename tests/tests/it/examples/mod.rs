//! The programs in `examples/`, on real nodes: what their readers will copy has to hold.

mod rate_limiter;
mod shop;
