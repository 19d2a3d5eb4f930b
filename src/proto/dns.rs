//! DNS messages (RFC 1035): one question out, its answer in. Layer 0.
//! What is read comes from a stranger: every count and pointer has a bound, and no storage is sized by a count field.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// More addresses than this are left unread.
pub const MAX_ADDRESSES: usize = 32;
/// An answer with more aliases than this is broken.
pub const MAX_CNAMES: usize = 16;
/// Pointers that may be followed in one message. 32 addresses and 16 aliases with owners three pointers deep fit.
const MAX_POINTER_HOPS: u32 = 256;
/// The datagram size we announce: it passes every path unfragmented (DNS flag day 2020).
const EDNS_UDP_BYTES: u16 = 1232;

const HEADER_BYTES: usize = 12;
const MAX_LABEL_BYTES: usize = 63;
/// RFC 1035 2.3.4, with the closing root label.
pub(super) const MAX_NAME_BYTES: usize = 255;

const CLASS_IN: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_SOA: u16 = 6;
const TYPE_OPT: u16 = 41;

/// Response codes that the resolver tells apart.
pub const RCODE_NOERROR: u8 = 0;
/// The server could not read the question; with EDNS in it, it may be too old for that.
pub const RCODE_FORMERR: u8 = 1;
/// The server could not find out.
pub const RCODE_SERVFAIL: u8 = 2;
/// There is no such name, with any type.
pub const RCODE_NXDOMAIN: u8 = 3;
/// The server does not do this kind of question.
pub const RCODE_NOTIMP: u8 = 4;
/// The server does not serve us.
pub const RCODE_REFUSED: u8 = 5;

/// What is asked about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qtype {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

impl Qtype {
    /// Whether `address` is of this type.
    #[must_use]
    pub fn is_type_of(self, address: IpAddr) -> bool {
        match self {
            Qtype::A => address.is_ipv4(),
            Qtype::Aaaa => address.is_ipv6(),
        }
    }

    fn number(self) -> u16 {
        match self {
            Qtype::A => 1,
            Qtype::Aaaa => 28,
        }
    }
}

/// Whether a question carries EDNS (RFC 6891), which allows answers of more than 512 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edns {
    /// Announce 1232 bytes.
    Offered,
    /// Leave it out: there are servers and middle boxes that refuse it.
    Omitted,
}

/// A name as it stands in a message: labels with their lengths, in lower case, closed by the root label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(Box<[u8]>);

impl Name {
    /// `text` is a name in dots, with or without the last one. `None` when a label is empty or over 63 bytes, or the
    /// whole is over 255.
    #[must_use]
    pub fn parse(text: &str) -> Option<Name> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.split('.') {
            if label.is_empty() || label.len() > MAX_LABEL_BYTES {
                return None;
            }
            wire.push(label.len() as u8);
            wire.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
        }
        wire.push(0);
        (wire.len() <= MAX_NAME_BYTES).then(|| Name(wire.into_boxed_slice()))
    }

    /// The name in dots, in lower case, without the last dot.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(self.0.len());
        let mut rest = &*self.0;
        while let Some((&length, labels)) = rest.split_first()
            && let Some((label, more)) = labels.split_at_checked(usize::from(length))
            && length > 0
        {
            if !text.is_empty() {
                text.push('.');
            }
            // A piece of a text between two dots is text.
            text.push_str(&String::from_utf8_lossy(label));
            rest = more;
        }
        text
    }
}

/// The message that asks for `name`, recursion desired.
#[must_use]
pub fn encode_query(id: u16, name: &Name, qtype: Qtype, edns: Edns) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER_BYTES + name.0.len() + 4 + 11);
    message.extend(id.to_be_bytes());
    // Flags: RD alone. Counts: one question, no answer, no authority, EDNS is an additional record.
    let additional = match edns {
        Edns::Offered => 1,
        Edns::Omitted => 0,
    };
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, additional]);
    message.extend(&*name.0);
    message.extend(qtype.number().to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    if edns == Edns::Offered {
        // RFC 6891 6.1.2: root name, type, size in the class field, version and flags 0, no options.
        message.push(0);
        message.extend(TYPE_OPT.to_be_bytes());
        message.extend(EDNS_UDP_BYTES.to_be_bytes());
        message.extend([0; 6]);
    }
    message
}

/// What a message turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// Not an answer to this question: another id or question, not a response, or noise. Nothing is known by it.
    Ignore,
    /// It answers this question, but its records cannot be read.
    Broken,
    /// The answer.
    Answer(Answer),
}

/// One server's answer to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Response code, see [`rcode_name`](super::reply::rcode_name).
    pub rcode: u8,
    /// The answer did not fit: ask again over TCP. The records were not read.
    pub truncated: bool,
    /// Addresses at the end of the alias chain that starts at the question, in the server's order.
    pub addresses: Vec<IpAddr>,
    /// How long this may be believed: the shortest time to live on that chain, and without addresses no longer than the SOA
    /// in the authority section allows (RFC 2308 5). 0 when nothing says so.
    pub ttl_s: u32,
}

/// Reads `message` as the answer to exactly the question `id`, `name`, `qtype`.
#[must_use]
pub fn read_answer(message: &[u8], id: u16, name: &Name, qtype: Qtype) -> Reading {
    let mut reader = Reader { message, at: 0, hops_left: MAX_POINTER_HOPS };
    let Some(header) = reader.header() else { return Reading::Ignore };
    if header.id != id || !header.is_response {
        return Reading::Ignore;
    }
    let (rcode, truncated) = (header.rcode, header.truncated);
    let without_records = Reading::Answer(Answer { rcode, truncated, addresses: Vec::new(), ttl_s: 0 });
    match header.questions {
        1 if reader.question_is(name, qtype) => {}
        // Servers that cannot read a question send their header alone. It says nothing about the name, so the id is
        // proof enough.
        0 if rcode != RCODE_NOERROR && rcode != RCODE_NXDOMAIN => return without_records,
        _ => return Reading::Ignore,
    }
    if truncated || (rcode != RCODE_NOERROR && rcode != RCODE_NXDOMAIN) {
        return without_records;
    }
    let Some((addresses, chain_ttl_s)) = reader.addresses(header.answers, name, qtype) else {
        return Reading::Broken;
    };
    let ttl_s = if addresses.is_empty() {
        // An authority section that cannot be read takes nothing from the answer; it is only not kept.
        chain_ttl_s.min(reader.negative_ttl_s(header.authorities).unwrap_or(0))
    } else {
        chain_ttl_s
    };
    Reading::Answer(Answer { rcode, truncated, addresses, ttl_s })
}

struct Header {
    id: u16,
    is_response: bool,
    truncated: bool,
    rcode: u8,
    questions: u16,
    answers: u16,
    authorities: u16,
}

/// A resource record, its variable parts by position.
struct Record {
    owner_at: usize,
    rtype: u16,
    class: u16,
    ttl_s: u32,
    data_at: usize,
    data_bytes: usize,
}

struct Cname {
    owner: Vec<u8>,
    target: Vec<u8>,
    ttl_s: u32,
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
    hops_left: u32,
}

impl Reader<'_> {
    fn header(&mut self) -> Option<Header> {
        let id = self.u16()?;
        let flags = self.u16()?;
        let (questions, answers) = (self.u16()?, self.u16()?);
        let authorities = self.u16()?;
        // Additional records are not read.
        self.take(2)?;
        let opcode_is_query = flags & 0x7800 == 0;
        Some(Header {
            id,
            is_response: flags & 0x8000 != 0 && opcode_is_query,
            truncated: flags & 0x0200 != 0,
            rcode: (flags & 0x000f) as u8,
            questions,
            answers,
            authorities,
        })
    }

    fn question_is(&mut self, name: &Name, qtype: Qtype) -> bool {
        self.name().is_some_and(|asked| *asked == *name.0)
            && self.u16() == Some(qtype.number())
            && self.u16() == Some(CLASS_IN)
    }

    /// The addresses, and the shortest time to live on the way to them. Without addresses it stops behind the records.
    ///
    /// Two passes, because the order of records is not laid down: the alias chain first, then what stands at its end.
    fn addresses(&mut self, count: u16, name: &Name, qtype: Qtype) -> Option<(Vec<IpAddr>, u32)> {
        let start = self.at;
        let mut cnames = self.cnames(count)?;
        let mut owner = name.0.to_vec();
        let mut ttl_s = u32::MAX;
        // Each alias is used once, so a ring of them ends.
        while let Some(next) = cnames.iter().position(|cname| cname.owner == owner) {
            let cname = cnames.remove(next);
            owner = cname.target;
            ttl_s = ttl_s.min(cname.ttl_s);
        }
        self.at = start;
        let mut addresses = Vec::new();
        for _ in 0..count {
            let record = self.record()?;
            let wanted = record.rtype == qtype.number() && record.class == CLASS_IN;
            if !wanted || self.name_at(record.owner_at)?.0 != owner {
                continue;
            }
            let address = self.address(&record, qtype)?;
            ttl_s = ttl_s.min(record.ttl_s);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
            if addresses.len() == MAX_ADDRESSES {
                break;
            }
        }
        Some((addresses, ttl_s))
    }

    /// What the SOA among `count` records allows: its own time to live and its last number, whichever is less.
    fn negative_ttl_s(&mut self, count: u16) -> Option<u32> {
        for _ in 0..count {
            let record = self.record()?;
            if record.rtype != TYPE_SOA || record.class != CLASS_IN {
                continue;
            }
            let mut data = Reader { at: record.data_at, ..*self };
            // Two names, then serial, refresh, retry and expire.
            data.skip_name()?;
            data.skip_name()?;
            data.take(16)?;
            let minimum_s = data.ttl_s()?;
            let whole = data.at == record.data_at.checked_add(record.data_bytes)?;
            return whole.then(|| minimum_s.min(record.ttl_s));
        }
        None
    }

    fn cnames(&mut self, count: u16) -> Option<Vec<Cname>> {
        let mut cnames = Vec::new();
        for _ in 0..count {
            let record = self.record()?;
            if record.rtype != TYPE_CNAME || record.class != CLASS_IN {
                continue;
            }
            if cnames.len() == MAX_CNAMES {
                return None;
            }
            let (owner, _) = self.name_at(record.owner_at)?;
            let (target, end) = self.name_at(record.data_at)?;
            if end != record.data_at.checked_add(record.data_bytes)? {
                return None;
            }
            cnames.push(Cname { owner, target, ttl_s: record.ttl_s });
        }
        Some(cnames)
    }

    fn record(&mut self) -> Option<Record> {
        let owner_at = self.at;
        self.skip_name()?;
        let (rtype, class) = (self.u16()?, self.u16()?);
        let ttl_s = self.ttl_s()?;
        let data_bytes = usize::from(self.u16()?);
        let data_at = self.at;
        self.take(data_bytes)?;
        Some(Record { owner_at, rtype, class, ttl_s, data_at, data_bytes })
    }

    /// RFC 2181 8: with the top bit set the value is 0.
    fn ttl_s(&mut self) -> Option<u32> {
        let (high, low) = (self.u16()?, self.u16()?);
        Some(if high < 0x8000 { u32::from(high) << 16 | u32::from(low) } else { 0 })
    }

    /// `None` when the data has not the length of an address.
    fn address(&self, record: &Record, qtype: Qtype) -> Option<IpAddr> {
        let data = self.message.get(record.data_at..)?.get(..record.data_bytes)?;
        match qtype {
            Qtype::A => <[u8; 4]>::try_from(data).ok().map(|octets| Ipv4Addr::from(octets).into()),
            Qtype::Aaaa => <[u8; 16]>::try_from(data).ok().map(|octets| Ipv6Addr::from(octets).into()),
        }
    }

    /// Passes over a name without following pointers.
    fn skip_name(&mut self) -> Option<()> {
        loop {
            match self.u8()? {
                0 => return Some(()),
                length @ 1..=63 => {
                    self.take(usize::from(length))?;
                }
                192.. => return self.u8().map(|_| ()),
                64..=191 => return None,
            }
        }
    }

    /// The name at `at` and the position behind it. What its pointers cost is counted against the message.
    fn name_at(&mut self, at: usize) -> Option<(Vec<u8>, usize)> {
        let mut there = Reader { at, ..*self };
        let name = there.name();
        self.hops_left = there.hops_left;
        Some((name?, there.at))
    }

    /// Reads a name in lower case, following pointers (RFC 1035 4.1.4), and stops behind it.
    ///
    /// A pointer must lead to before the run of labels that it ends. Nothing legal is lost: one that leads into its
    /// own run is a loop. So positions only fall, and reading ends even without the budget.
    fn name(&mut self) -> Option<Vec<u8>> {
        let mut name = Vec::new();
        let mut run_start = self.at;
        let mut end = None;
        loop {
            match self.u8()? {
                0 => break,
                length @ 1..=63 => {
                    name.push(length);
                    let label = self.take(usize::from(length))?;
                    name.extend(label.iter().map(u8::to_ascii_lowercase));
                    if name.len() >= MAX_NAME_BYTES {
                        return None;
                    }
                }
                high @ 192.. => {
                    let target = usize::from(high & 0x3f) << 8 | usize::from(self.u8()?);
                    end = end.or(Some(self.at));
                    if target >= run_start || target < HEADER_BYTES {
                        return None;
                    }
                    self.hops_left = self.hops_left.checked_sub(1)?;
                    run_start = target;
                    self.at = target;
                }
                64..=191 => return None,
            }
        }
        name.push(0);
        self.at = end.unwrap_or(self.at);
        Some(name)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn take(&mut self, bytes: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(bytes)?;
        let taken = self.message.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }
}

/// Answers as a server would write them, for the tests of this module, the resolver and its sockets.
#[cfg(test)]
pub(crate) mod script {
    #![allow(clippy::unwrap_used)]
    use super::{CLASS_IN, Name, Qtype, TYPE_CNAME, TYPE_SOA};
    use std::net::IpAddr;

    /// One record of an answer section.
    #[derive(Clone, Copy)]
    pub(crate) enum Rr<'a> {
        Address(&'a str, &'a str),
        Cname(&'a str, &'a str),
        /// In the authority section: owner, its own time to live, and that for what does not exist.
        Soa(&'a str, u32, u32),
    }

    /// The question in a query: the name in dots and the type.
    pub(crate) fn question(query: &[u8]) -> (String, Qtype) {
        let mut at = 12;
        let mut labels = Vec::new();
        while query[at] != 0 {
            let end = at + 1 + usize::from(query[at]);
            labels.push(String::from_utf8(query[at + 1..end].to_vec()).unwrap());
            at = end;
        }
        let qtype = if query[at + 2] == 1 { Qtype::A } else { Qtype::Aaaa };
        (labels.join("."), qtype)
    }

    pub(crate) fn question_end(query: &[u8]) -> usize {
        let mut at = 12;
        while query[at] != 0 {
            at += 1 + usize::from(query[at]);
        }
        at + 5
    }

    pub(crate) fn has_edns(query: &[u8]) -> bool {
        query[11] == 1
    }

    /// The answer to `query`. Owners equal to the question's name are compressed.
    pub(crate) fn reply(query: &[u8], rcode: u8, records: &[Rr<'_>]) -> Vec<u8> {
        let mut message = query[..question_end(query)].to_vec();
        message[2] = 0x81;
        message[3] = 0x80 | rcode;
        message[6..12].fill(0);
        let asked = Name::parse(&question(query).0).unwrap();
        for record in records {
            let (owner, rtype, ttl_s, data) = match *record {
                Rr::Cname(owner, target) => (owner, TYPE_CNAME, 300, Name::parse(target).unwrap().0.to_vec()),
                Rr::Soa(owner, ttl_s, minimum_s) => {
                    let mut data = b"\x02ns\xc0\x0c\x04root\xc0\x0c".to_vec();
                    data.extend([0; 16]);
                    data.extend(minimum_s.to_be_bytes());
                    (owner, TYPE_SOA, ttl_s, data)
                }
                Rr::Address(owner, address) => match address.parse().unwrap() {
                    IpAddr::V4(v4) => (owner, 1, 300, v4.octets().to_vec()),
                    IpAddr::V6(v6) => (owner, 28, 300, v6.octets().to_vec()),
                },
            };
            message[if rtype == TYPE_SOA { 9 } else { 7 }] += 1;
            let owner = Name::parse(owner).unwrap();
            if owner == asked {
                message.extend([0xc0, 12])
            } else {
                message.extend(&*owner.0)
            }
            message.extend(rtype.to_be_bytes());
            message.extend(CLASS_IN.to_be_bytes());
            message.extend(ttl_s.to_be_bytes());
            message.extend((data.len() as u16).to_be_bytes());
            message.extend(data);
        }
        message
    }

    /// `message` with the truncated flag.
    pub(crate) fn truncated(mut message: Vec<u8>) -> Vec<u8> {
        message[2] |= 2;
        message
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::script::{Rr, reply, truncated};
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn query() -> Vec<u8> {
        encode_query(0x1234, &name("www.example.com"), Qtype::A, Edns::Offered)
    }

    fn read(message: &[u8]) -> Reading {
        read_answer(message, 0x1234, &name("WWW.Example.com."), Qtype::A)
    }

    fn read_ok(message: &[u8]) -> Answer {
        match read(message) {
            Reading::Answer(answer) => answer,
            other @ (Reading::Ignore | Reading::Broken) => panic!("{other:?}"),
        }
    }

    /// A record of any type, owner and data as bytes, TTL 60.
    fn raw_record(owner: &[u8], rtype: u16, data: &[u8]) -> Vec<u8> {
        let mut record = owner.to_vec();
        record.extend(rtype.to_be_bytes());
        record.extend([0, 1, 0, 0, 0, 60]);
        record.extend((data.len() as u16).to_be_bytes());
        record.extend(data);
        record
    }

    /// An answer whose records are given as bytes.
    fn raw_reply(records: &[Vec<u8>]) -> Vec<u8> {
        let mut message = reply(&query(), 0, &[]);
        message[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        message.extend(records.concat());
        message
    }

    /// `www.example.com` through two aliases, with compression as servers do it and the chain in odd order.
    fn chained() -> Vec<u8> {
        // The answer section starts at 33; "example" of the question stands at 16, "com" at 24.
        let records = [
            raw_record(b"\x03web\xc0\x10", 5, b"\x04edge\x03cdn\x04test\x00"),
            raw_record(b"\xc0\x0c", 5, b"\xc0\x21"),
            raw_record(b"\xc0\x31", 1, &[192, 0, 2, 1]),
            raw_record(b"\x05other\xc0\x18", 1, &[192, 0, 2, 99]),
            raw_record(b"\xc0\x31", 46, b"signature"),
            raw_record(b"\xc0\x31", 1, &[192, 0, 2, 2]),
        ];
        raw_reply(&records)
    }

    #[test]
    fn query_bytes() {
        let with = encode_query(0xabcd, &name("A.bc"), Qtype::Aaaa, Edns::Offered);
        assert_eq!(
            with,
            b"\xab\xcd\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x01a\x02bc\x00\x00\x1c\x00\x01\
              \x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"
        );
        let without = encode_query(0xabcd, &name("a.bc."), Qtype::Aaaa, Edns::Omitted);
        assert_eq!(without[..11], with[..11]);
        assert_eq!(without[11], 0);
        assert_eq!(without[12..], with[12..22]);
    }

    #[test]
    fn names_have_limits() {
        let label = "a".repeat(63);
        assert!(Name::parse(&label).is_some());
        assert!(Name::parse(&format!("a{label}")).is_none());
        let longest = format!("{label}.{label}.{label}.{}", "b".repeat(61));
        assert!(Name::parse(&longest).is_some_and(|name| name.0.len() == MAX_NAME_BYTES));
        assert!(Name::parse(&format!("{longest}b")).is_none());
        for bad in ["", ".", "..", "a..b", ".a", "a.."] {
            assert!(Name::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_in_order_with_the_shortest_ttl() {
        let mut message = reply(
            &query(),
            0,
            &[
                Rr::Address("www.example.com", "192.0.2.7"),
                Rr::Address("www.example.com", "2001:db8::7"),
                Rr::Address("www.example.com", "192.0.2.3"),
                Rr::Address("www.example.com", "192.0.2.7"),
            ],
        );
        let answer = read_ok(&message);
        assert_eq!(answer.addresses, ips(&["192.0.2.7", "192.0.2.3"]));
        assert_eq!((answer.rcode, answer.truncated, answer.ttl_s), (0, false, 300));
        let ttl_at = script::question_end(&query()) + 6;
        message[ttl_at] = 0x80;
        assert_eq!(read_ok(&message).ttl_s, 0);
    }

    #[test]
    fn alias_chain_is_followed_in_any_order() {
        let answer = read_ok(&chained());
        assert_eq!(answer.addresses, ips(&["192.0.2.1", "192.0.2.2"]));
        assert_eq!(answer.ttl_s, 60);
    }

    #[test]
    fn aaaa_is_read_as_well() {
        let query = encode_query(9, &name("six.test"), Qtype::Aaaa, Edns::Omitted);
        let message =
            reply(&query, 0, &[Rr::Address("six.test", "2001:db8::7"), Rr::Address("six.test", "10.0.0.1")]);
        let Reading::Answer(answer) = read_answer(&message, 9, &name("six.test"), Qtype::Aaaa) else {
            panic!()
        };
        assert_eq!(answer.addresses, ips(&["2001:db8::7"]));
    }

    #[test]
    fn addresses_off_the_chain_are_ignored() {
        let message = reply(
            &query(),
            0,
            &[
                Rr::Cname("www.example.com", "real.test"),
                Rr::Address("www.example.com", "192.0.2.1"),
                Rr::Address("evil.test", "192.0.2.2"),
                Rr::Address("real.test", "192.0.2.3"),
            ],
        );
        assert_eq!(read_ok(&message).addresses, ips(&["192.0.2.3"]));
    }

    #[test]
    fn alias_ring_ends_without_addresses() {
        let message = reply(
            &query(),
            0,
            &[Rr::Cname("www.example.com", "b.test"), Rr::Cname("b.test", "www.example.com")],
        );
        let answer = read_ok(&message);
        assert!(answer.addresses.is_empty());
        assert_eq!(answer.ttl_s, 0);
    }

    #[test]
    fn codes_and_truncation() {
        assert_eq!(read_ok(&reply(&query(), 3, &[])).rcode, RCODE_NXDOMAIN);
        assert_eq!(read_ok(&reply(&query(), 2, &[])).rcode, RCODE_SERVFAIL);
        // Cut in the middle of a record, as some servers do it.
        let whole = truncated(chained());
        let cut = read_ok(&whole[..whole.len() - 3]);
        assert!(cut.truncated && cut.addresses.is_empty());
        // A header alone says that the server is unwilling, but never that a name does not exist.
        assert_eq!(read_ok(&[0x12, 0x34, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]).rcode, RCODE_FORMERR);
        assert_eq!(read(&[0x12, 0x34, 0x80, 3, 0, 0, 0, 0, 0, 0, 0, 0]), Reading::Ignore);
        assert_eq!(read(&[0x12, 0x34, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Reading::Ignore);
    }

    #[test]
    fn answers_to_something_else_are_ignored() {
        let good = reply(&query(), 0, &[Rr::Address("www.example.com", "192.0.2.7")]);
        assert!(matches!(read(&good), Reading::Answer(_)));
        assert_eq!(read_answer(&good, 0x1235, &name("www.example.com"), Qtype::A), Reading::Ignore);
        assert_eq!(read_answer(&good, 0x1234, &name("www.example.org"), Qtype::A), Reading::Ignore);
        assert_eq!(read_answer(&good, 0x1234, &name("www.example.com"), Qtype::Aaaa), Reading::Ignore);
        assert_eq!(read(&query()), Reading::Ignore);
        let mut upper = good.clone();
        upper[13..16].copy_from_slice(b"WwW");
        assert_eq!(read(&upper), read(&good));
        let mut other_opcode = good.clone();
        other_opcode[2] |= 0x28;
        assert_eq!(read(&other_opcode), Reading::Ignore);
        let mut two_questions = good.clone();
        two_questions[5] = 2;
        assert_eq!(read(&two_questions), Reading::Ignore);
        let mut chaos_class = good;
        let class_at = script::question_end(&query()) - 1;
        chaos_class[class_at] = 3;
        assert_eq!(read(&chaos_class), Reading::Ignore);
    }

    #[test]
    fn pointers_lead_strictly_backwards() {
        let answer_at = script::question_end(&query());
        assert_eq!(answer_at, 33);
        let own = [0xc0, 33];
        let forward = [0xc0, 50];
        let own_run = [b"\x01a".as_slice(), &[0xc0, 33]].concat();
        let header = [0xc0, 4];
        let outside = [0xff, 0xff];
        for owner in [&own[..], &forward, &own_run, &header, &outside] {
            assert_eq!(
                read(&raw_reply(&[raw_record(owner, 1, &[1, 2, 3, 4])])),
                Reading::Broken,
                "{owner:?}"
            );
        }
        // Two names that point at each other: the earlier one would have to point forward.
        let ring = raw_reply(&[
            raw_record(b"\xc0\x0c", 5, b"\x01x\xc0\x40"),
            raw_record(b"\xc0\x2d", 5, b"\xc0\x2d"),
        ]);
        assert_eq!(read(&ring), Reading::Broken);
        // Other label types (RFC 6891 5 gave them up).
        assert_eq!(read(&raw_reply(&[raw_record(b"\x41a\x00", 1, &[1, 2, 3, 4])])), Reading::Broken);
    }

    #[test]
    fn pointer_hops_have_a_budget_for_the_whole_message() {
        // A staircase of pointers in one record, each to the one before; the first to the question's name.
        let steps = |count: usize| {
            let mut stairs = vec![0xc0, 12];
            for step in 1..count {
                stairs.extend((0xc000 | (45 + 2 * (step - 1)) as u16).to_be_bytes());
            }
            let top = (0xc000 | (45 + 2 * (count - 1)) as u16).to_be_bytes();
            raw_reply(&[raw_record(b"\xc0\x0c", 16, &stairs), raw_record(&top, 1, &[192, 0, 2, 1])])
        };
        assert_eq!(read_ok(&steps(100)).addresses, ips(&["192.0.2.1"]));
        assert_eq!(read_ok(&steps(255)).addresses, ips(&["192.0.2.1"]));
        assert_eq!(read(&steps(256)), Reading::Broken);
        // The same cost, spread over many records.
        let mut many = vec![raw_record(b"\xc0\x0c", 16, &[0xc0, 12, 0xc0, 45, 0xc0, 47, 0xc0, 49])];
        many.extend((0..60).map(|_| raw_record(b"\x01z\xc0\x33", 1, &[192, 0, 2, 1])));
        assert_eq!(read(&raw_reply(&many)), Reading::Broken);
    }

    #[test]
    fn expanded_names_have_the_length_of_names() {
        // 63-byte labels, each record's name pointing at the one before: the fourth is too long.
        let mut records = Vec::new();
        let mut at: u16 = 33;
        let mut before: u16 = 12;
        for _ in 0..4 {
            let mut owner = vec![63];
            owner.extend([b'a'; 63]);
            owner.extend((0xc000 | before).to_be_bytes());
            let record = raw_record(&owner, 1, &[192, 0, 2, 1]);
            before = at;
            at += record.len() as u16;
            records.push(record);
        }
        assert!(read_ok(&raw_reply(&records[..3])).addresses.is_empty());
        assert_eq!(read(&raw_reply(&records)), Reading::Broken);
    }

    #[test]
    fn at_most_32_addresses_and_16_aliases() {
        let addresses: Vec<String> = (0..40).map(|n| format!("192.0.2.{n}")).collect();
        let records: Vec<Rr<'_>> =
            addresses.iter().map(|address| Rr::Address("www.example.com", address)).collect();
        assert_eq!(read_ok(&reply(&query(), 0, &records)).addresses.len(), MAX_ADDRESSES);

        let names: Vec<String> = (0..20).map(|n| format!("n{n}.test")).collect();
        let chain = |aliases: usize| {
            let mut records = vec![Rr::Cname("www.example.com", &names[0])];
            records.extend((1..aliases).map(|n| Rr::Cname(&names[n - 1], &names[n])));
            records.push(Rr::Address(&names[aliases - 1], "192.0.2.1"));
            read(&reply(&query(), 0, &records))
        };
        assert!(matches!(chain(16), Reading::Answer(answer) if answer.addresses.len() == 1));
        assert_eq!(chain(17), Reading::Broken);
    }

    #[test]
    fn lengths_that_lie() {
        let address = |data: &[u8]| read(&raw_reply(&[raw_record(b"\xc0\x0c", 1, data)]));
        assert!(matches!(address(&[1, 2, 3, 4]), Reading::Answer(_)));
        assert_eq!(address(&[1, 2, 3]), Reading::Broken);
        assert_eq!(address(&[1, 2, 3, 4, 5]), Reading::Broken);
        assert_eq!(read(&raw_reply(&[raw_record(b"\xc0\x0c", 5, b"\x01a\x00\x00")])), Reading::Broken);
        let mut count = reply(&query(), 0, &[Rr::Address("www.example.com", "192.0.2.7")]);
        count[6..8].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(read(&count), Reading::Broken);
    }

    #[test]
    fn negative_answers_last_as_long_as_the_soa_says() {
        let ttl_s = |records: &[Rr<'_>]| read_ok(&reply(&query(), 3, records)).ttl_s;
        assert_eq!(ttl_s(&[Rr::Soa("example.com", 900, 60)]), 60);
        assert_eq!(ttl_s(&[Rr::Soa("example.com", 60, 900)]), 60);
        assert_eq!(ttl_s(&[Rr::Soa("example.com", 900, 0)]), 0);
        assert_eq!(ttl_s(&[Rr::Soa("example.com", 900, 0x8000_0000)]), 0);
        assert_eq!(ttl_s(&[]), 0);
        // Aliases on the way to nowhere count as well: theirs is 300.
        let alias = Rr::Cname("www.example.com", "gone.test");
        assert_eq!(ttl_s(&[alias, Rr::Soa("test", 900, 600)]), 300);
        assert_eq!(ttl_s(&[alias, Rr::Soa("test", 900, 60)]), 60);
        assert_eq!(ttl_s(&[alias]), 0);
        // With addresses it does not matter.
        let found = [Rr::Address("www.example.com", "192.0.2.7"), Rr::Soa("example.com", 5, 5)];
        assert_eq!(read_ok(&reply(&query(), 0, &found)).ttl_s, 300);
    }

    #[test]
    fn authority_that_cannot_be_read_is_not_believed() {
        let authority = |records: &[Vec<u8>]| {
            let mut message = reply(&query(), 3, &[]);
            message[9] = records.len() as u8;
            message.extend(records.concat());
            let answer = read_ok(&message);
            assert_eq!((answer.rcode, answer.addresses.len()), (3, 0));
            answer.ttl_s
        };
        let numbers = [[0; 16].as_slice(), &[0, 0, 0, 50]].concat();
        let soa = |data: &[u8]| raw_record(b"\xc0\x10", 6, data);
        let good = soa(&[b"\xc0\x10\xc0\x10", &numbers[..]].concat());
        let name_server = raw_record(b"\xc0\x10", 2, b"\xc0\x10");
        assert_eq!(authority(&[name_server.clone(), good.clone()]), 50);
        assert_eq!(authority(&[name_server]), 0);
        assert_eq!(authority(&[soa(&[b"\xc0\x10\xc0\x10", &numbers[1..]].concat())]), 0);
        assert_eq!(authority(&[soa(&[b"\xc0\x10\xc0\x10\x00", &numbers[..]].concat())]), 0);
        assert_eq!(authority(&[soa(&[b"\x41a\xc0\x10", &numbers[..]].concat())]), 0);
        assert_eq!(authority(&[soa(b"")]), 0);
        assert_eq!(authority(&[good[..good.len() - 1].to_vec()]), 0);
        let mut chaos_class = good;
        chaos_class[5] = 3;
        assert_eq!(authority(&[chaos_class]), 0);
    }

    #[test]
    fn names_are_written_as_they_were_read() {
        for text in ["a", "www.example.com", "x--y.test", "b\u{fc}cher.test"] {
            assert_eq!(name(text).text(), text);
        }
        assert_eq!(name("WWW.Example.COM.").text(), "www.example.com");
    }

    #[test]
    fn every_cut_is_noticed_and_every_flip_survived() {
        let denied = [Rr::Cname("www.example.com", "a.b"), Rr::Soa("example.com", 900, 900)];
        let messages = [
            chained(),
            reply(&query(), 0, &[Rr::Cname("www.example.com", "a.b"), Rr::Address("a.b", "192.0.2.7")]),
            reply(&query(), 3, &denied),
        ];
        for message in messages {
            let whole = read_ok(&message);
            for end in 0..message.len() {
                match read(&message[..end]) {
                    Reading::Ignore | Reading::Broken => {}
                    // Cut in the authority section: it is not kept.
                    Reading::Answer(answer) => {
                        assert_eq!((whole.addresses.len(), answer.ttl_s), (0, 0), "{end}");
                        assert_eq!(answer.rcode, whole.rcode);
                    }
                }
            }
            for at in 0..message.len() {
                for value in 0..=255 {
                    let mut flipped = message.clone();
                    flipped[at] = value;
                    if let Reading::Answer(answer) = read(&flipped) {
                        assert!(answer.addresses.len() <= 2);
                    }
                }
            }
        }
    }

    /// Two bytes at a time, where a length or a pointer stands: every value that a pointer can have.
    #[test]
    fn every_length_and_every_pointer_may_lie() {
        let message = chained();
        for at in (33..message.len() - 1).filter(|&at| message[at] >= 0xc0 || message[at] == 0) {
            for value in
                (0..=0x0200_u16).chain(0xbff0..=0xc000 + message.len() as u16).chain([0xffff, 0x8000])
            {
                let mut flipped = message.clone();
                flipped[at..at + 2].copy_from_slice(&value.to_be_bytes());
                if let Reading::Answer(answer) = read(&flipped) {
                    assert!(answer.addresses.len() <= 3);
                }
            }
        }
    }
}
