//! How the nodes of Tidemark reach each other: connections as a handle, an HTTP client on top, and compression.
//!
//! A node opens connections through a [`Connector`] and takes them from a [`Listen`]; nothing else in it knows where
//! bytes come from, so that a simulated cluster can own the network. [`HttpClient`] keeps connections of a
//! connector and sends requests on them. It goes straight to the address of the URL, follows no redirect and
//! does not look into answers. [`Packer`] and [`Unpacker`] compress what a connection carries.

mod address;
mod connector;
mod http;
mod listen;
mod packing;

pub use address::{Address, AddressError};
pub use connector::{Connecting, Connector, Io, TcpConnector};
pub use http::{Answer, HttpClient, HttpError, HttpOptions, read_whole};
pub use listen::Listen;
pub use packing::{Packer, UnpackError, Unpacker};
