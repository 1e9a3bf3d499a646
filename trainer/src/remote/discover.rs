//! Doors that announce themselves on the local network.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use facelatch_shared::link::SERVICE;
use mdns_sd::{ResolvedService, ServiceDaemon, ServiceEvent};

/// A door that was heard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Announced {
    /// As it calls itself: anybody may claim any name.
    pub name: String,
    /// Host and port.
    pub address: String,
    /// First digits of the key that it claims to have; connecting proves it.
    pub id: String,
}

/// Listens for doors for so long.
///
/// # Errors
/// [`mdns_sd::Error`] when the network cannot be listened to.
pub fn discover(within: Duration) -> Result<Vec<Announced>, mdns_sd::Error> {
    let daemon = ServiceDaemon::new()?;
    let heard = daemon.browse(SERVICE)?;
    let deadline = Instant::now() + within;
    let mut doors: Vec<Announced> = Vec::new();
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        match heard.recv_timeout(left) {
            Ok(ServiceEvent::ServiceResolved(service)) => {
                if let Some(door) = announced(&service) {
                    doors.retain(|other| other.id != door.id);
                    doors.push(door);
                }
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    let _ = daemon.shutdown();
    doors.sort();
    Ok(doors)
}

fn announced(service: &ResolvedService) -> Option<Announced> {
    let text = |key| service.get_property_val_str(key).map(printable);
    let addresses = service.get_addresses().iter().map(mdns_sd::ScopedIp::to_ip_addr);
    let ip = addresses.filter(|ip| is_reachable(*ip)).min_by_key(|ip| (ip.is_ipv6(), *ip))?;
    let address = SocketAddr::new(ip, service.get_port()).to_string();
    Some(Announced { name: text("name")?, address, id: text("id")? })
}

/// Link-local addresses of IPv6 say nothing without their interface.
fn is_reachable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    }
}

/// What a stranger on the network says of itself must not move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(48).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_say_is_made_harmless() {
        assert_eq!(printable("North\u{1b}[2J\n door"), "North[2J door");
        assert_eq!(printable(&"n".repeat(400)).len(), 48);
    }

    #[test]
    fn addresses_without_their_interface_are_of_no_use() {
        assert!(is_reachable("10.0.0.1".parse().unwrap()) && is_reachable("fd00::1".parse().unwrap()));
        assert!(!is_reachable("fe80::1".parse().unwrap()));
    }
}
