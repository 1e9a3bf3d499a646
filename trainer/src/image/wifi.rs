//! The wireless network that a door joins: read from a small file, written for wpa_supplicant.

use std::path::Path;

use serde::Deserialize;

use super::ImageError;

/// A network and how to get in.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wifi {
    /// Its name: 1 to 32 bytes (IEEE 802.11-2020, 9.4.2.2).
    ssid: String,
    /// 8 to 63 printable ASCII characters (the same, J.4.1).
    passphrase: String,
    /// ISO 3166 code of the country whose channels and powers hold.
    country: String,
    /// Whether the network does not tell its name.
    #[serde(default)]
    hidden: bool,
}

impl Wifi {
    /// Reads and checks a file with the keys `ssid`, `passphrase`, `country` and, where the network hides, `hidden = true`.
    ///
    /// # Errors
    /// [`ImageError`] with the key and what it must be; the passphrase is not repeated.
    pub fn load(path: &Path) -> Result<Self, ImageError> {
        let text = std::fs::read_to_string(path).map_err(ImageError::io(path))?;
        Self::parse(&text).map_err(|what| ImageError::input(format!("{}: {what}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, String> {
        // The parser's own words would show the line, and with it the passphrase.
        let wifi: Self = toml::from_str(text).map_err(|error| {
            format!(
                "{}. It takes ssid, passphrase and country = \"DE\", each in quotes, and hidden = true where the network hides",
                error.message()
            )
        })?;
        let country = wifi.country.as_bytes();
        if !(1..=32).contains(&wifi.ssid.len()) {
            return Err("ssid has 1 to 32 bytes".into());
        }
        if !(8..=63).contains(&wifi.passphrase.len())
            || !wifi.passphrase.bytes().all(|byte| (32..127).contains(&byte))
        {
            return Err("passphrase has 8 to 63 letters, digits and signs of ASCII".into());
        }
        if country.len() != 2 || !country.iter().all(u8::is_ascii_uppercase) {
            return Err("country has two capital letters, such as \"DE\"".into());
        }
        Ok(wifi)
    }

    /// The file for wpa_supplicant: WPA2 and WPA3, no control interface.
    #[must_use]
    pub fn supplicant(&self) -> String {
        // Quoted text ends at the last quote of the line: none of it is escaped. The name may be any bytes.
        format!(
            "country={}\nnetwork={{\n\tssid={}\n\tscan_ssid={}\n\tkey_mgmt=WPA-PSK WPA-PSK-SHA256 SAE\n\tieee80211w=1\n\tpsk=\"{}\"\n}}\n",
            self.country,
            hex::encode(&self.ssid),
            u8::from(self.hidden),
            self.passphrase
        )
    }
}

/// Without the passphrase.
impl std::fmt::Debug for Wifi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wifi")
            .field("ssid", &self.ssid)
            .field("country", &self.country)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_written_for_wpa_supplicant() {
        let text = "ssid = \"Büro 2\"\npassphrase = 'say \"friend\" # twice'\ncountry = \"DE\"\n";
        let wifi = Wifi::parse(text).unwrap();
        let written = wifi.supplicant();
        assert!(
            written.starts_with("country=DE\nnetwork={\n\tssid=42c3bc726f2032\n\tscan_ssid=0\n"),
            "{written}"
        );
        assert!(written.ends_with("\tpsk=\"say \"friend\" # twice\"\n}\n"), "{written}");
        assert!(!format!("{wifi:?}").contains("friend"));
        let hidden = Wifi::parse(&format!("{text}hidden = true\n")).unwrap().supplicant();
        assert!(hidden.contains("scan_ssid=1"), "{hidden}");
    }

    #[test]
    fn what_cannot_be_is_named_and_the_passphrase_is_not() {
        let refused = |ssid: &str, passphrase: &str, country: &str| {
            let text = format!("ssid = {ssid:?}\npassphrase = {passphrase:?}\ncountry = {country:?}\n");
            let what = Wifi::parse(&text).unwrap_err();
            assert!(passphrase.is_empty() || !what.contains(passphrase), "{what}");
            what
        };
        assert!(refused("", "correct horse", "DE").starts_with("ssid"));
        assert!(refused(&"x".repeat(33), "correct horse", "DE").starts_with("ssid"));
        assert!(refused("home", "short", "DE").starts_with("passphrase"));
        assert!(refused("home", &"x".repeat(64), "DE").starts_with("passphrase"));
        assert!(refused("home", "two\nlines of it", "DE").starts_with("passphrase"));
        assert!(refused("home", "correct horse", "de").starts_with("country"));
        for text in
            ["ssid = \"home\"\npassphrase = secret pass\n", "ssid = \"home\"\npasphrase = \"secret pass\"\n"]
        {
            let what = Wifi::parse(text).unwrap_err();
            assert!(!what.contains("secret") && what.contains("ssid, passphrase and country"), "{what}");
        }
    }
}
