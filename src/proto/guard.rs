//! The guard: which addresses are special-purpose and not to be reached through a public proxy, after IPv4 addresses
//! have been unwrapped from the IPv6 addresses that carry them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network: the addresses that share its first `prefix_bits` bits. No bit behind them is set. In order, a network comes
/// directly before those inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Net {
    address: IpAddr,
    prefix_bits: u8,
}

impl Net {
    /// A network; `None` if the prefix is too long for the family or a bit behind it is set.
    #[must_use]
    pub fn new(address: IpAddr, prefix_bits: u8) -> Option<Net> {
        let host_bits_are_zero = match address {
            IpAddr::V4(address) if prefix_bits <= 32 => address.to_bits() & !mask32(prefix_bits) == 0,
            IpAddr::V6(address) if prefix_bits <= 128 => address.to_bits() & !mask128(prefix_bits) == 0,
            IpAddr::V4(_) | IpAddr::V6(_) => false,
        };
        host_bits_are_zero.then_some(Net { address, prefix_bits })
    }

    /// The network of this one address.
    #[must_use]
    pub fn host(address: IpAddr) -> Net {
        Net { address, prefix_bits: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// The network of this many bits around an address; a prefix that is too long for IPv4 is that of the address alone.
    #[must_use]
    pub fn around_v4(address: Ipv4Addr, prefix_bits: u8) -> Net {
        let prefix_bits = if prefix_bits < 32 { prefix_bits } else { 32 };
        let first = address.to_bits() & mask32(prefix_bits);
        Net { address: IpAddr::V4(Ipv4Addr::from_bits(first)), prefix_bits }
    }

    const fn v4(a: u8, b: u8, c: u8, prefix_bits: u8) -> Net {
        Net { address: IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), prefix_bits }
    }

    const fn v6(a: u16, b: u16, c: u16, prefix_bits: u8) -> Net {
        Net { address: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)), prefix_bits }
    }

    /// The first address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits its addresses share.
    #[must_use]
    pub fn prefix_bits(&self) -> u8 {
        self.prefix_bits
    }

    /// Whether the address is in the network. Families never mix.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                address.to_bits() & mask32(self.prefix_bits) == net.to_bits()
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                address.to_bits() & mask128(self.prefix_bits) == net.to_bits()
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Whether all of this network lies in the other one.
    #[must_use]
    pub fn lies_in(&self, other: &Net) -> bool {
        other.prefix_bits <= self.prefix_bits && other.contains(self.address)
    }

    /// The same network written as IPv4 if it is made of IPv4-mapped addresses.
    #[must_use]
    pub fn unmapped(self) -> Net {
        match self.address {
            IpAddr::V6(address) if self.prefix_bits >= 96 => match address.to_ipv4_mapped() {
                Some(v4) => Net { address: IpAddr::V4(v4), prefix_bits: self.prefix_bits - 96 },
                None => self,
            },
            IpAddr::V4(_) | IpAddr::V6(_) => self,
        }
    }
}

/// As a rule writes it: `10.0.0.0/8`, and an address by itself without its prefix.
impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Net::host(self.address) {
            return self.address.fmt(f);
        }
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

/// The network of every address on which only this machine's programs are.
pub const LOOPBACK: [Net; 2] =
    [Net::v4(127, 0, 0, 8), Net { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix_bits: 128 }];

/// The networks of a site: RFC 1918, IPv4 link-local, unique local and IPv6 link-local addresses.
pub const PRIVATE: [Net; 6] = [
    Net::v4(10, 0, 0, 8),
    Net::v4(172, 16, 0, 12),
    Net::v4(192, 168, 0, 16),
    Net::v4(169, 254, 0, 16),
    Net::v6(0xfc00, 0, 0, 7),
    Net::v6(0xfe80, 0, 0, 10),
];

/// IPv4 addresses that an IPv6 address stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Where packets to the IPv6 address end up.
    pub endpoint: Ipv4Addr,
    /// With Teredo, the server that helps them there; otherwise again the endpoint.
    pub helper: Ipv4Addr,
    /// The IPv6 network whose addresses are made this way.
    pub form: Net,
}

/// The forms in which an IPv6 address carries IPv4 ones, and the bit at which the endpoint begins.
const MAPPED: Net = Net { address: IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)), prefix_bits: 96 };
const TRANSLATED: Net =
    Net { address: IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0)), prefix_bits: 96 };
const COMPATIBLE: Net = Net::v6(0, 0, 0, 96);
const NAT64: Net = Net::v6(0x64, 0xff9b, 0, 96);
const SIX_TO_FOUR: Net = Net::v6(0x2002, 0, 0, 16);
const TEREDO: Net = Net::v6(0x2001, 0, 0, 32);

/// Whether all addresses of this network are made in one of the forms that carry IPv4 (`::` and `::1` among them).
#[must_use]
pub fn lies_in_carrying_form(net: &Net) -> bool {
    [MAPPED, TRANSLATED, COMPATIBLE, NAT64, SIX_TO_FOUR, TEREDO].iter().any(|form| net.lies_in(form))
}

/// Unwraps IPv4 from an IPv6 address: mapped and compatible (RFC 4291 2.5.5), translated (RFC 2765 2.1), NAT64
/// (RFC 6052 2.1), 6to4 (RFC 3056 2), Teredo (RFC 4380 4). `::` and `::1` are addresses of their own.
#[must_use]
pub fn carried(address: IpAddr) -> Option<Carried> {
    let IpAddr::V6(v6) = address else { return None };
    if v6.is_unspecified() || v6.is_loopback() {
        return None;
    }
    let v4_at = |bit: u32| Ipv4Addr::from_bits((v6.to_bits() >> (96 - bit)) as u32);
    let same = |form: Net, endpoint: Ipv4Addr| Some(Carried { endpoint, helper: endpoint, form });
    for form in [MAPPED, TRANSLATED, COMPATIBLE, NAT64] {
        if form.contains(address) {
            return same(form, v4_at(96));
        }
    }
    if SIX_TO_FOUR.contains(address) {
        return same(SIX_TO_FOUR, v4_at(16));
    }
    if TEREDO.contains(address) {
        // The client's address stands inverted (RFC 4380 4).
        let endpoint = Ipv4Addr::from_bits(!v4_at(96).to_bits());
        return Some(Carried { endpoint, helper: v4_at(32), form: TEREDO });
    }
    None
}

/// The special-purpose range that holds this address, in a word without white space; `None` for a public one.
///
/// IPv4 inside IPv6 is judged as IPv4.
#[must_use]
pub fn special_purpose(address: IpAddr) -> Option<&'static str> {
    let table: &[(Net, &str)] = match address {
        IpAddr::V4(_) => &SPECIAL_V4,
        IpAddr::V6(_) => match carried(address) {
            Some(Carried { endpoint, helper, form: _ }) => {
                return special_purpose(IpAddr::V4(endpoint)).or_else(|| special_purpose(IpAddr::V4(helper)));
            }
            None => &SPECIAL_V6,
        },
    };
    if let Some((_, range)) = table.iter().find(|(net, _)| net.contains(address)) {
        return Some(range);
    }
    // All global unicast addresses that were ever given out are in 2000::/3 (IANA IPv6 address space).
    (address.is_ipv6() && !Net::v6(0x2000, 0, 0, 3).contains(address)).then_some("reserved")
}

/// From the IANA IPv4 special-purpose address registry: what is not globally reachable, and 192.0.0.0/24 with its few
/// anycast addresses, behind which no web server is. First match counts.
const SPECIAL_V4: [(Net, &str); 17] = [
    (Net { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix_bits: 32 }, "unspecified"),
    (Net::v4(0, 0, 0, 8), "this-network"),
    (Net::v4(10, 0, 0, 8), "private"),
    (Net::v4(100, 64, 0, 10), "carrier-grade-nat"),
    (Net::v4(127, 0, 0, 8), "loopback"),
    (Net::v4(169, 254, 0, 16), "link-local"),
    (Net::v4(172, 16, 0, 12), "private"),
    (Net::v4(192, 0, 0, 24), "reserved"),
    (Net::v4(192, 0, 2, 24), "documentation"),
    (Net::v4(192, 88, 99, 24), "reserved"),
    (Net::v4(192, 168, 0, 16), "private"),
    (Net::v4(198, 18, 0, 15), "benchmark"),
    (Net::v4(198, 51, 100, 24), "documentation"),
    (Net::v4(203, 0, 113, 24), "documentation"),
    (Net::v4(224, 0, 0, 4), "multicast"),
    (Net { address: IpAddr::V4(Ipv4Addr::BROADCAST), prefix_bits: 32 }, "broadcast"),
    (Net::v4(240, 0, 0, 4), "reserved"),
];

/// From the IANA IPv6 special-purpose address registry, likewise: 2001::/23 is refused as a whole (Teredo was unwrapped
/// before), with the few anycast services in it.
const SPECIAL_V6: [(Net, &str); 13] = [
    (Net { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), prefix_bits: 128 }, "unspecified"),
    (Net { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix_bits: 128 }, "loopback"),
    (Net::v6(0x64, 0xff9b, 1, 48), "private"),
    (Net::v6(0x100, 0, 0, 64), "discard"),
    (Net::v6(0x2001, 2, 0, 48), "benchmark"),
    (Net::v6(0x2001, 0, 0, 23), "reserved"),
    (Net::v6(0x2001, 0xdb8, 0, 32), "documentation"),
    (Net::v6(0x3fff, 0, 0, 20), "documentation"),
    (Net::v6(0x5f00, 0, 0, 16), "reserved"),
    (Net::v6(0xfc00, 0, 0, 7), "unique-local"),
    (Net::v6(0xfe80, 0, 0, 10), "link-local"),
    (Net::v6(0xfec0, 0, 0, 10), "site-local"),
    (Net::v6(0xff00, 0, 0, 8), "multicast"),
];

const fn mask32(prefix_bits: u8) -> u32 {
    match u32::MAX.checked_shl(32 - prefix_bits as u32) {
        Some(mask) => mask,
        None => 0,
    }
}

const fn mask128(prefix_bits: u8) -> u128 {
    match u128::MAX.checked_shl(128 - prefix_bits as u32) {
        Some(mask) => mask,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn both_ends_of_every_range_are_kept_and_their_neighbours_are_not() {
        let ranges = [
            ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0", "private"),
            ("100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0", "carrier-grade-nat"),
            ("126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0", "loopback"),
            ("169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0", "link-local"),
            ("172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0", "private"),
            ("191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0", "reserved"),
            ("192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0", "documentation"),
            ("192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0", "reserved"),
            ("192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0", "private"),
            ("198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0", "benchmark"),
            ("198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0", "documentation"),
            ("203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0", "documentation"),
            ("2000:ffff::", "2001:1ff::", "2001:1ff:ffff::", "2001:200::", "reserved"),
            ("2001:db7:ffff::1", "2001:db8::", "2001:db8:ffff::1", "2001:db9::", "documentation"),
            ("3ffe:ffff::1", "3fff::", "3fff:fff:ffff::1", "3fff:1000::", "documentation"),
        ];
        for (before, first, last, after, range) in ranges {
            assert_eq!(special_purpose(ip(before)), None, "{before}");
            assert_eq!(special_purpose(ip(first)), Some(range), "{first}");
            assert_eq!(special_purpose(ip(last)), Some(range), "{last}");
            assert_eq!(special_purpose(ip(after)), None, "{after}");
        }
    }

    #[test]
    fn single_addresses() {
        let cases = [
            ("0.0.0.0", Some("unspecified")),
            ("0.1.2.3", Some("this-network")),
            ("169.254.169.254", Some("link-local")),
            ("224.0.0.1", Some("multicast")),
            ("239.255.255.255", Some("multicast")),
            ("240.0.0.1", Some("reserved")),
            ("255.255.255.255", Some("broadcast")),
            ("1.1.1.1", None),
            ("223.255.255.255", None),
            ("::", Some("unspecified")),
            ("::1", Some("loopback")),
            ("64:ff9b:1::1", Some("private")),
            ("100::1", Some("discard")),
            ("2001:2::1", Some("benchmark")),
            ("2001:20::1", Some("reserved")),
            ("2606:4700::1111", None),
            ("2a00:1450::1", None),
            ("5f00::1", Some("reserved")),
            ("4000::1", Some("reserved")),
            ("fc00::1", Some("unique-local")),
            ("fd12:3456::1", Some("unique-local")),
            ("fe80::1", Some("link-local")),
            ("febf::1", Some("link-local")),
            ("fec0::1", Some("site-local")),
            ("ff02::1", Some("multicast")),
        ];
        for (address, range) in cases {
            assert_eq!(special_purpose(ip(address)), range, "{address}");
        }
    }

    #[test]
    fn ipv4_inside_ipv6_is_judged_as_ipv4() {
        for (v4, range) in [("127.0.0.1", Some("loopback")), ("10.1.2.3", Some("private")), ("8.8.8.8", None)]
        {
            let IpAddr::V4(inside) = ip(v4) else { panic!() };
            let [a, b, c, d] = inside.octets().map(u16::from);
            let (high, low) = (a << 8 | b, c << 8 | d);
            let addresses = [
                Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
                Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 1, 2, 3, 4, 5),
                Ipv6Addr::new(0x2001, 0, 0x0808, 0x0404, 0, 0, !high, !low),
                Ipv6Addr::new(0x2001, 0, high, low, 0, 0, !0x0808, !0x0404),
            ];
            for (form, address) in addresses.into_iter().enumerate() {
                let carried = carried(IpAddr::V6(address)).unwrap();
                assert!(carried.form.contains(IpAddr::V6(address)));
                assert_eq!(if form == 6 { carried.helper } else { carried.endpoint }, inside, "{address}");
                assert_eq!(special_purpose(IpAddr::V6(address)), range, "{address}");
            }
        }
        assert_eq!(carried(ip("::1")), None);
        assert_eq!(carried(ip("::")), None);
        assert_eq!(carried(ip("2606:4700::1111")), None);
        assert_eq!(carried(ip("127.0.0.1")), None);
    }

    #[test]
    fn networks() {
        assert!(Net::new(ip("10.0.0.1"), 8).is_none());
        assert!(Net::new(ip("10.0.0.0"), 33).is_none());
        assert!(Net::new(ip("::"), 129).is_none());
        assert!(Net::new(ip("2001:db8::1"), 64).is_none());
        let all = Net::new(ip("0.0.0.0"), 0).unwrap();
        assert!(all.contains(ip("255.1.2.3")) && !all.contains(ip("::1")));
        assert!(Net::new(ip("::"), 0).unwrap().contains(ip("ffff::1")));
        assert!(Net::host(ip("10.0.0.1")).lies_in(&Net::v4(10, 0, 0, 8)));
        assert!(!Net::v4(10, 0, 0, 8).lies_in(&Net::host(ip("10.0.0.0"))));
        let mapped = Net::new(ip("::ffff:10.0.0.0"), 104).unwrap();
        assert_eq!(mapped.unmapped(), Net::v4(10, 0, 0, 8));
        assert_eq!(NAT64.unmapped(), NAT64);
    }

    #[test]
    fn the_tables_hold_networks() {
        let tables =
            SPECIAL_V4.iter().chain(&SPECIAL_V6).map(|(net, _)| net).chain(&LOOPBACK).chain(&PRIVATE);
        for net in tables.chain(&[MAPPED, TRANSLATED, COMPATIBLE, NAT64, SIX_TO_FOUR, TEREDO]) {
            assert_eq!(Net::new(net.address, net.prefix_bits), Some(*net), "{net:?}");
        }
    }
}
