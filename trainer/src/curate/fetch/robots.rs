//! robots.txt: what a host asks of programs (RFC 9309), and the crawl delay that many write into it.

/// What one host asks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Robots {
    /// Pattern, and whether it allows.
    rules: Vec<(String, bool)>,
    /// Milliseconds between two requests that the host asks for.
    pub delay_ms: Option<u64>,
}

/// A delay asked for counts up to an hour.
const LONGEST_DELAY_S: f64 = 3600.0;
/// Rules read at most: RFC 9309 asks for 500 KiB of file.
pub const LARGEST: usize = 512 << 10;

impl Robots {
    /// Nothing is allowed: for a host whose rules cannot be had (RFC 9309, 2.3.1.4).
    #[must_use]
    pub fn closed() -> Self {
        Self { rules: vec![("/".into(), false)], delay_ms: None }
    }

    /// Reads what `text` asks of `token`: the groups that name it, else those for everybody.
    #[must_use]
    pub fn parse(text: &str, token: &str) -> Self {
        let (mut own, mut all) = (None, None);
        // Agents of the group that is being read; a line of another kind ends their list.
        let (mut agents, mut listing): (Vec<String>, bool) = (Vec::new(), false);
        for line in text.trim_start_matches('\u{feff}').lines() {
            let line = line.split('#').next().unwrap_or("");
            let Some((key, value)) = line.split_once(':') else { continue };
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
            if key == "user-agent" {
                if !listing {
                    agents.clear();
                }
                listing = true;
                agents.push(value.to_ascii_lowercase());
                continue;
            }
            listing = false;
            let named = agents.iter().any(|agent| *agent == token);
            let anybody = agents.iter().any(|agent| agent == "*");
            for (group, _) in [(&mut own, named), (&mut all, anybody)].into_iter().filter(|(_, here)| *here) {
                let group = group.get_or_insert_with(Self::default);
                match key.as_str() {
                    "allow" | "disallow" if !value.is_empty() => {
                        group.rules.push((plain(value), key == "allow"));
                    }
                    "crawl-delay" => {
                        let seconds = value.parse::<f64>().ok().filter(|s| s.is_finite() && *s >= 0.0);
                        group.delay_ms = seconds.map(|s| (s.min(LONGEST_DELAY_S) * 1000.0) as u64);
                    }
                    _ => {}
                }
            }
        }
        own.or(all).unwrap_or_default()
    }

    /// Whether `path`, with its query, may be asked for: the longest pattern that fits decides, of equals the one that allows.
    #[must_use]
    pub fn allows(&self, path: &str) -> bool {
        let path = plain(path);
        let fitting = self.rules.iter().filter(|(pattern, _)| fits(pattern, &path));
        fitting.max_by_key(|(pattern, allows)| (pattern.len(), *allows)).is_none_or(|(_, allows)| *allows)
    }
}

/// With escapes of letters and digits undone and all others in upper case, so that one path has one spelling.
fn plain(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 3).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                out.push(char::from(byte))
            }
            Some(byte) => out.push_str(&format!("%{byte:02X}")),
            None => {
                out.push('%');
                rest = &rest[at + 1..];
                continue;
            }
        }
        rest = &rest[at + 3..];
    }
    out + rest
}

/// `*` stands for anything, `$` at the end for the end.
fn fits(pattern: &str, path: &str) -> bool {
    let (pattern, whole) = pattern.strip_suffix('$').map_or((pattern, false), |p| (p, true));
    let mut parts = pattern.split('*');
    let Some(mut rest) = path.strip_prefix(parts.next().unwrap_or("")) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return !whole || rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if whole && parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_that_names_us_counts_and_the_longest_pattern_decides() {
        let text = "\u{feff}# hello\nUser-agent: other\nDisallow: /\n\nuser-agent: *\nDisallow: /all # but\nCrawl-delay: 2.5\n\
                    User-Agent: a\nUser-Agent: FaceLatch\nDisallow: /private\nAllow: /private/open\nDisallow: /*.gif$\nDisallow:\nSitemap: x\n";
        let ours = Robots::parse(text, "facelatch");
        for (path, allowed) in [
            ("/", true),
            ("/all", true),
            ("/private/x", false),
            ("/%70rivate/x", false),
            ("/private/open/x", true),
            ("/a.gif", false),
            ("/a.gif?b", true),
        ] {
            assert_eq!(ours.allows(path), allowed, "{path}");
        }
        assert_eq!(ours.delay_ms, None);
        let anybody = Robots::parse(text, "somebody");
        assert!(!anybody.allows("/all/x") && anybody.allows("/private"));
        assert_eq!(anybody.delay_ms, Some(2500));
        assert!(!Robots::closed().allows("/x") && Robots::parse("", "facelatch").allows("/x"));
        assert!(Robots::parse("<html>not: rules</html>", "facelatch").allows("/x"));
    }

    #[test]
    fn patterns_fit_as_the_standard_says() {
        for (pattern, path, fit) in [
            ("/fish", "/fish.html", true),
            ("/fish", "/Fish", false),
            ("/fish*", "/fishheads", true),
            ("/*.php", "/a/b.php?x", true),
            ("/*.php$", "/a.php", true),
            ("/*.php$", "/a.php?x", false),
            ("/fish*.php", "/fish/a.php", true),
            ("/fish*.php", "/cat.php", false),
            ("/$", "/", true),
            ("/$", "/a", false),
            ("*", "/a", true),
            ("/a*a$", "/a", false),
        ] {
            assert_eq!(fits(pattern, path), fit, "{pattern} {path}");
        }
        assert_eq!(plain("/%7ea%2f%zz%"), "/~a%2F%zz%");
    }
}
