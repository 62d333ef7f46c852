//! Where a connection leads.

use std::fmt;

use hyper::Uri;

/// The other end of a connection to be made.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Address {
    /// Whether the URL says `https` or `wss`.
    pub tls: bool,
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// A URL leads nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Its scheme is none that is spoken here.
    #[error("want http:// or https://")]
    Scheme,
    /// It names nobody.
    #[error("no host")]
    Host,
}

impl Address {
    /// Where `url` leads.
    pub fn of(url: &Uri) -> Result<Self, AddressError> {
        let tls = match url.scheme_str() {
            Some("http" | "ws") => false,
            Some("https" | "wss") => true,
            _ => return Err(AddressError::Scheme),
        };
        let authority = url.authority().ok_or(AddressError::Host)?;
        let host = authority.host();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tls: _, host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_where_the_url_leads() {
        let check = |url: &str, tls, host: &str, port, text: &str| {
            let address = Address::of(&url.parse().expect("a URL")).expect("leads somewhere");
            let host = host.to_owned();
            assert_eq!(address, Address { tls, host, port });
            assert_eq!(address.to_string(), text);
        };
        check("http://a:8787/x", false, "a", 8787, "a:8787");
        check("ws://a", false, "a", 80, "a:80");
        check("https://a", true, "a", 443, "a:443");
        check("http://[::1]:9/", false, "::1", 9, "[::1]:9");
        let refused = |url: &str| Address::of(&url.parse().expect("a URL"));
        assert_eq!(refused("ftp://a"), Err(AddressError::Scheme));
        assert_eq!(refused("/x"), Err(AddressError::Scheme));
    }
}
