//! Many networks: an address is looked up in time that grows with the logarithm of their number. IPv4 networks take 8 bytes.
//!
//! A network inside another one is dropped, so those that are left do not overlap: of all that begin at or before an address
//! only the last can hold it.

use super::super::guard::{Carried, Net, carried, lies_in_carrying_form};
use super::sort::sort;
use super::tier::Action;
use std::net::{IpAddr, Ipv4Addr};

/// A set of networks. [`Nets::seal`] stands between the last insertion and the first question.
#[derive(Default)]
pub(super) struct Nets {
    /// First address, then prefix length in the lowest byte: sorted like networks.
    v4: Vec<u64>,
    v6: Vec<Net>,
    /// IPv6 networks inside a form that carries IPv4 addresses: by themselves, as only they allow carriers
    /// ([`super::rule::Rule`]), and a wider one around them does not make them needless.
    carriers: Vec<Net>,
}

impl Nets {
    pub(super) fn insert(&mut self, net: Net) {
        match net.address() {
            IpAddr::V4(address) => self.v4.push(packed(address, net.prefix_bits())),
            IpAddr::V6(_) if lies_in_carrying_form(&net) => self.carriers.push(net),
            IpAddr::V6(_) => self.v6.push(net),
        }
    }

    pub(super) fn seal(&mut self) {
        sort(&mut self.v4);
        // What comes later lies in what is kept, or behind it.
        self.v4.dedup_by(|later, kept| unpacked(*later).lies_in(&unpacked(*kept)));
        self.v4.shrink_to_fit();
        for nets in [&mut self.v6, &mut self.carriers] {
            sort(nets);
            nets.dedup_by(|later, kept| later.lies_in(kept));
            nets.shrink_to_fit();
        }
    }

    /// The network that holds for this address, if one does: as [`super::rule::Rule`] does it for one network.
    pub(super) fn find(&self, address: IpAddr, action: Action) -> Option<Net> {
        match (carried(address), action) {
            (None, Action::Deny | Action::Allow) => self.holding(address),
            (Some(Carried { endpoint, helper, form: _ }), Action::Deny) => self
                .holding(address)
                .or_else(|| self.holding_v4(endpoint))
                .or_else(|| self.holding_v4(helper)),
            // One network must hold both.
            (Some(Carried { endpoint, helper, form: _ }), Action::Allow) => self
                .holding_v4(endpoint)
                .filter(|net| net.contains(IpAddr::V4(helper)))
                .or_else(|| holding_v6(&self.carriers, address)),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.v4.len() + self.v6.len() + self.carriers.len()
    }

    /// What they take.
    pub(super) fn bytes(&self) -> usize {
        self.v4.capacity() * size_of::<u64>()
            + (self.v6.capacity() + self.carriers.capacity()) * size_of::<Net>()
    }

    fn holding(&self, address: IpAddr) -> Option<Net> {
        match address {
            IpAddr::V4(address) => self.holding_v4(address),
            IpAddr::V6(_) => holding_v6(&self.v6, address).or_else(|| holding_v6(&self.carriers, address)),
        }
    }

    fn holding_v4(&self, address: Ipv4Addr) -> Option<Net> {
        let behind = self.v4.partition_point(|&net| net <= packed(address, u8::MAX));
        let net = unpacked(*self.v4.get(behind.checked_sub(1)?)?);
        net.contains(IpAddr::V4(address)).then_some(net)
    }
}

fn holding_v6(nets: &[Net], address: IpAddr) -> Option<Net> {
    let behind = nets.partition_point(|net| net.address() <= address);
    nets.get(behind.checked_sub(1)?).copied().filter(|net| net.contains(address))
}

fn packed(address: Ipv4Addr, prefix_bits: u8) -> u64 {
    (u64::from(address.to_bits()) << 8) | u64::from(prefix_bits)
}

fn unpacked(net: u64) -> Net {
    Net::around_v4(Ipv4Addr::from_bits((net >> 8) as u32), net as u8)
}
