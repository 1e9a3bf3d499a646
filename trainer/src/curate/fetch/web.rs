//! The web and the time as fetching sees them: a request without redirects, and a clock. Tests have their own of both.

use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// What a host answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Where to, of a redirect.
    pub location: Option<String>,
    /// Seconds that the host asks to be left alone.
    pub retry_after_s: Option<u64>,
    /// The body; one byte longer than asked for when it is too large.
    pub body: Vec<u8>,
}

/// Asks hosts.
pub trait Web {
    /// One GET of `url`; redirects are not followed, and of the body one byte more than `largest` is read at most.
    ///
    /// # Errors
    /// Why there was no answer, for the list; another time there may be one.
    fn get(&mut self, url: &str, largest: usize) -> Result<Answer, String>;
}

/// Time, which tests make up.
pub trait Clock {
    /// Milliseconds since some moment.
    fn now_ms(&self) -> u64;
    /// Waits.
    fn sleep_ms(&self, ms: u64);
}

/// This machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct Real(Instant);

impl Default for Real {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Real {
    fn now_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }

    fn sleep_ms(&self, ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }
}

/// HTTP and HTTPS; trusts the certificates that this machine trusts.
#[derive(Debug)]
pub struct Client(ureq::Agent);

impl Client {
    /// Calls itself `name`, waits `timeout` for a whole answer; `proxies`: uses those that the environment names.
    #[must_use]
    pub fn new(name: &str, timeout: Duration, proxies: bool) -> Self {
        let roots = rustls_native_certs::load_native_certs();
        let roots: RootCerts = roots.certs.iter().map(|c| Certificate::from_der(c).to_owned()).into();
        let tls = TlsConfig::builder()
            .root_certs(roots)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let mut config = ureq::Agent::config_builder()
            .tls_config(tls)
            .user_agent(name)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_global(Some(timeout));
        if !proxies {
            config = config.proxy(None);
        }
        Self(config.build().new_agent())
    }
}

impl Web for Client {
    fn get(&mut self, url: &str, largest: usize) -> Result<Answer, String> {
        let mut response = self.0.get(url).call().map_err(said)?;
        let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let mut answer = Answer {
            status: response.status().as_u16(),
            location: header("location"),
            retry_after_s: header("retry-after").and_then(|text| text.trim().parse().ok()),
            body: Vec::new(),
        };
        let body = response.body_mut().with_config().limit(u64::MAX).reader();
        body.take(largest as u64 + 1).read_to_end(&mut answer.body).map_err(|e| said(e.into()))?;
        Ok(answer)
    }
}

fn said(error: ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "no answer in time".into(),
        error => error.to_string(),
    }
}

/// An address in parts: `http://host:port`, and the path with its query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Scheme, host and port: what has its own robots.txt and its own pace.
    pub origin: String,
    /// From the slash on, without `.` and `..`.
    pub path: String,
}

impl Address {
    /// Takes an absolute address apart.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri =
            url.trim().parse().map_err(|e| format!("no address: {e}; write other letters as %XX"))?;
        let scheme = uri.scheme_str().map(str::to_ascii_lowercase);
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (scheme.as_deref(), uri.authority())
        else {
            return Err("no address: it must begin with http:// or https://".into());
        };
        if authority.as_str().contains('@') {
            return Err("an address with a user name or password is not asked for".into());
        }
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
        Ok(Self {
            origin: format!("{scheme}://{}", authority.as_str().to_ascii_lowercase()),
            path: without_dots(path) + query,
        })
    }

    /// Where a redirect from here leads.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn join(&self, location: &str) -> Result<Self, String> {
        let location = location.trim();
        let scheme = self.origin.split("//").next().unwrap_or("http:");
        let path = self.path.split('?').next().unwrap_or("/");
        Self::parse(&match location {
            l if l.starts_with("//") => format!("{scheme}{l}"),
            l if l.starts_with('/') => format!("{}{l}", self.origin),
            l if l.starts_with('?') => format!("{}{path}{l}", self.origin),
            l if l.split(['/', '?']).next().is_some_and(|first| first.contains(':')) => l.to_owned(),
            l => format!("{}{}/{l}", self.origin, path.rsplit_once('/').map_or("", |(folder, _)| folder)),
        })
    }

    /// The whole.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}{}", self.origin, self.path)
    }
}

/// RFC 3986, 5.2.4: else a path could get past a host's rules.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            "." | ".." => {
                if part == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            part => kept.push(part),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart_and_redirects_joined() {
        let at = Address::parse("HTTP://Example.org:81/a/./b/../c.jpg?x=/../y#part").unwrap();
        assert_eq!(at, Address { origin: "http://example.org:81".into(), path: "/a/c.jpg?x=/../y".into() });
        for (location, url) in [
            ("https://b.org", "https://b.org/"),
            ("//b.org/x", "http://b.org/x"),
            ("/x?y", "http://example.org:81/x?y"),
            ("d.jpg", "http://example.org:81/a/d.jpg"),
            ("../d.jpg", "http://example.org:81/d.jpg"),
            ("?z", "http://example.org:81/a/c.jpg?z"),
        ] {
            assert_eq!(at.join(location).unwrap().url(), url, "{location}");
        }
        for bad in ["", "c.jpg", "ftp://b.org/x", "file:///etc/passwd", "http://a:b@c.org/", "http://a b"] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
        assert!(at.join("file:///etc/passwd").is_err() && at.join("javascript:x").is_err());
    }
}
