//! Tells the local network, by multicast DNS, that a door listens here: only while it does.

use std::net::SocketAddr;

use facelatch_shared::bundle::PublicKey;
use facelatch_shared::link::SERVICE;
use facelatch_shared::person::Name;
use mdns_sd::{IfKind, ServiceDaemon, ServiceInfo};

use super::peers::id_of;

/// An announcement; dropping it takes it back.
pub(super) struct Announcement {
    daemon: ServiceDaemon,
}

impl Announcement {
    /// Announces the door called `name` with `key` at `address`; where it listens at one address alone, to that network alone. Nothing, said
    /// in the log, when that cannot be done: the door is found by its address then.
    pub(super) fn start(address: SocketAddr, name: &Name, key: PublicKey) -> Option<Self> {
        match announce(address, name, key) {
            Ok(daemon) => Some(Self { daemon }),
            Err(error) => {
                tracing::warn!(%error, "the door is not announced on the network; its address finds it all the same");
                None
            }
        }
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        let _ = self.daemon.shutdown();
    }
}

fn announce(address: SocketAddr, name: &Name, key: PublicKey) -> Result<ServiceDaemon, mdns_sd::Error> {
    let daemon = ServiceDaemon::new()?;
    let ip = address.ip();
    let id = id_of(key).to_string();
    // Two doors of one name are told apart by their keys.
    let instance = format!("{name} {id}");
    let properties = [("name", name.as_str()), ("id", id.as_str())];
    let host = format!("facelatch-{id}.local.");
    let info = if ip.is_unspecified() {
        ServiceInfo::new(SERVICE, &instance, &host, "", address.port(), &properties[..])?.enable_addr_auto()
    } else {
        daemon.disable_interface(IfKind::All)?;
        daemon.enable_interface(IfKind::Addr(ip))?;
        ServiceInfo::new(SERVICE, &instance, &host, ip, address.port(), &properties[..])?
    };
    daemon.register(info)?;
    Ok(daemon)
}
