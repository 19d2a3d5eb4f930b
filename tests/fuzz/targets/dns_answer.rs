//! The input is a DNS message. It is read as the answer to the very question in it, and as the answer to others. A naive
//! second reader must find the same addresses.
#![no_main]

use std::net::IpAddr;

use adit::proto::dns::{self, Answer, Edns, Name, Qtype, Reading};
use adit::proto::reply;
use libfuzzer_sys::fuzz_target;

const HEADER_BYTES: usize = 12;

fuzz_target!(|message: &[u8]| {
    let id = message.get(..2).and_then(|id| id.try_into().ok()).map_or(0, u16::from_be_bytes);
    let text = question(message).unwrap_or_else(|| "www.example.com".into());
    let Some(name) = Name::parse(&text) else { return };
    for qtype in [Qtype::A, Qtype::Aaaa] {
        let reading = dns::read_answer(message, id, &name, qtype);
        if let Reading::Answer(answer) = &reading {
            check(answer, message, qtype);
            let other_id = dns::read_answer(message, id ^ 1, &name, qtype);
            assert_eq!(other_id, Reading::Ignore, "the id counts");
            only_this_question(message, id, &name, qtype);
        }
        second_opinion(message, &reading, qtype);
        cuts(message, &reading, |cut| dns::read_answer(cut, id, &name, qtype));
        if text.is_ascii() {
            let upper = in_upper_case(message, &text);
            assert_eq!(dns::read_answer(&upper, id, &name, qtype), reading, "case does not matter");
        }
        own_question(id, &name, qtype);
    }
});

/// Whatever a server writes, this holds for what is believed.
fn check(answer: &Answer, message: &[u8], qtype: Qtype) {
    let addresses = &answer.addresses;
    assert!(addresses.len() <= dns::MAX_ADDRESSES, "{} addresses", addresses.len());
    assert!(answer.rcode <= 15 && !reply::rcode_name(answer.rcode).is_empty());
    assert!(answer.ttl_s <= 0x7fff_ffff, "RFC 2181 8: {}", answer.ttl_s);
    let has_authority = message[8..10] != [0, 0];
    assert!(
        !addresses.is_empty() || answer.ttl_s == 0 || has_authority,
        "RFC 2308 5: only an SOA says how long nothing lasts"
    );
    let no_records = answer.truncated || !matches!(answer.rcode, dns::RCODE_NOERROR | dns::RCODE_NXDOMAIN);
    assert!(!no_records || addresses.is_empty(), "the records of such an answer are not read");
    for (index, address) in addresses.iter().enumerate() {
        assert!(!addresses[..index].contains(address), "{address} stands there twice");
        assert_eq!(address.is_ipv4(), qtype == Qtype::A, "{address} is not of the asked type");
        assert!(stands_in(address, message), "{address} is made up");
    }
}

fn stands_in(address: &IpAddr, message: &[u8]) -> bool {
    match address {
        IpAddr::V4(v4) => message.windows(4).any(|window| window == v4.octets()),
        IpAddr::V6(v6) => message.windows(16).any(|window| window == v6.octets()),
    }
}

/// A header without a question says nothing about any name; every other answer is to one question only.
fn only_this_question(message: &[u8], id: u16, name: &Name, qtype: Qtype) {
    if message[4..6] == [0, 0] {
        return;
    }
    let other_type = if qtype == Qtype::A { Qtype::Aaaa } else { Qtype::A };
    assert_eq!(dns::read_answer(message, id, name, other_type), Reading::Ignore, "the type counts");
    for text in ["other.example", "a", "www.example.net"] {
        let other = Name::parse(text).expect("a name");
        assert!(
            other == *name || dns::read_answer(message, id, &other, qtype) == Reading::Ignore,
            "the name counts"
        );
    }
}

/// Compares with [`Naive`], which knows no limits but those of the format.
fn second_opinion(message: &[u8], reading: &Reading, qtype: Qtype) {
    let mut naive = Naive { message, hops: 0, cnames: 0 };
    let found = naive.addresses(if qtype == Qtype::A { 1 } else { 28 });
    match reading {
        Reading::Ignore => {}
        Reading::Broken => {
            let over_a_limit = naive.hops >= 250 || naive.cnames > dns::MAX_CNAMES;
            let nothing_lost = found.is_none_or(|(addresses, _)| addresses.is_empty());
            assert!(over_a_limit || nothing_lost, "a good answer is refused");
        }
        Reading::Answer(answer) => {
            let has_records =
                matches!(answer.rcode, dns::RCODE_NOERROR | dns::RCODE_NXDOMAIN) && !answer.truncated;
            if has_records && message[4..6] == [0, 1] {
                let (addresses, ttl_s) = found.expect("a broken answer is believed");
                assert_eq!(answer.addresses, addresses);
                assert!(
                    addresses.is_empty() || answer.ttl_s == ttl_s,
                    "{} instead of {ttl_s} s",
                    answer.ttl_s
                );
            }
        }
    }
}

struct Naive<'a> {
    message: &'a [u8],
    hops: usize,
    cnames: usize,
}

impl Naive<'_> {
    /// RFC 1035 4: every record of the answer section as owner's place, type, class, TTL and data's place; then the
    /// alias chain; then the addresses at its end and the shortest TTL.
    fn addresses(&mut self, wanted: u16) -> Option<(Vec<IpAddr>, u32)> {
        let (mut owner, question_end) = self.name(HEADER_BYTES)?;
        let mut at = question_end + 4;
        let mut records = Vec::new();
        for _ in 0..self.u16(6)? {
            let fixed = self.behind_name(at)?;
            let data = fixed + 10..fixed + 10 + usize::from(self.u16(fixed + 8)?);
            self.message.get(data.clone())?;
            let ttl = u32::from(self.u16(fixed + 4)?) << 16 | u32::from(self.u16(fixed + 6)?);
            records.push((
                at,
                self.u16(fixed)?,
                self.u16(fixed + 2)?,
                if ttl >> 31 == 0 { ttl } else { 0 },
                data.clone(),
            ));
            at = data.end;
        }
        let mut aliases = Vec::new();
        for (from, rtype, class, ttl_s, data) in &records {
            if (*rtype, *class) == (5, 1) {
                let (target, end) = self.name(data.start)?;
                aliases.push((self.name(*from)?.0, target, *ttl_s));
                self.cnames += 1;
                (end == data.end).then_some(())?;
            }
        }
        let mut shortest_s = u32::MAX;
        while let Some(next) = aliases.iter().position(|alias| alias.0 == owner) {
            let (_, target, ttl_s) = aliases.remove(next);
            owner = target;
            shortest_s = shortest_s.min(ttl_s);
        }
        let mut addresses: Vec<IpAddr> = Vec::new();
        for (from, rtype, class, ttl_s, data) in records {
            if (rtype, class) != (wanted, 1)
                || addresses.len() == dns::MAX_ADDRESSES
                || self.name(from)?.0 != owner
            {
                continue;
            }
            let data = &self.message[data];
            let address = match wanted {
                1 => IpAddr::from(<[u8; 4]>::try_from(data).ok()?),
                _ => IpAddr::from(<[u8; 16]>::try_from(data).ok()?),
            };
            shortest_s = shortest_s.min(ttl_s);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Some((addresses, shortest_s))
    }

    /// A name in lower case, and the place behind it. A pointer leads to before the run of labels that it ends.
    fn name(&mut self, at: usize) -> Option<(Vec<u8>, usize)> {
        let (mut name, mut here) = (Vec::new(), at);
        loop {
            match usize::from(*self.message.get(here)?) {
                0 => {
                    name.push(0);
                    return (name.len() <= 255).then_some((name, here + 1));
                }
                length @ 1..=63 => {
                    name.extend(self.message.get(here..=here + length)?.to_ascii_lowercase());
                    here += 1 + length;
                }
                192.. => {
                    let target = usize::from(self.u16(here)? & 0x3fff);
                    self.hops += 1;
                    (HEADER_BYTES..at).contains(&target).then_some(())?;
                    name.extend(self.name(target)?.0);
                    return (name.len() <= 255).then_some((name, here + 2));
                }
                64..=191 => return None,
            }
        }
    }

    fn behind_name(&self, mut at: usize) -> Option<usize> {
        loop {
            match usize::from(*self.message.get(at)?) {
                0 => return Some(at + 1),
                length @ 1..=63 => at += 1 + length,
                192.. => return Some(at + 2),
                64..=191 => return None,
            }
        }
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.message.get(at..at + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
    }
}

/// What is cut off is missed: a shorter message is never read as another answer than the whole one.
fn cuts(message: &[u8], whole: &Reading, read: impl Fn(&[u8]) -> Reading) {
    let places = [
        message.len() / 2,
        message.len() * 3 / 4,
        message.len().saturating_sub(5),
        message.len().saturating_sub(1),
    ];
    for end in places {
        let Reading::Answer(cut) = read(&message[..end]) else { continue };
        let Reading::Answer(whole) = whole else { panic!("{end} bytes are an answer, all are {whole:?}") };
        assert_eq!(
            (cut.rcode, cut.truncated, &cut.addresses),
            (whole.rcode, whole.truncated, &whole.addresses)
        );
    }
}

/// Our own question, sent back with the response bit, is an answer without addresses.
fn own_question(id: u16, name: &Name, qtype: Qtype) {
    for edns in [Edns::Offered, Edns::Omitted] {
        let mut message = dns::encode_query(id, name, qtype, edns);
        assert_eq!(dns::read_answer(&message, id, name, qtype), Reading::Ignore, "a query is no response");
        message[2] |= 0x80;
        let reading = dns::read_answer(&message, id, name, qtype);
        let Reading::Answer(answer) = reading else { panic!("{reading:?}") };
        assert!(answer.addresses.is_empty() && !answer.truncated && answer.rcode == dns::RCODE_NOERROR);
    }
}

/// The name of the first question as text, read without pointers.
fn question(message: &[u8]) -> Option<String> {
    let mut text = String::new();
    let mut at = HEADER_BYTES;
    loop {
        let length = usize::from(*message.get(at)?);
        if length == 0 {
            return (!text.is_empty()).then_some(text);
        }
        if length > 63 {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        let label = std::str::from_utf8(message.get(at + 1..=at + length)?).ok()?;
        if label.contains('.') {
            return None;
        }
        text.push_str(label);
        at += 1 + length;
    }
}

/// The message with the letters of its question's name in upper case. ASCII letters are no lengths and no pointers, so
/// nothing else changes its meaning.
fn in_upper_case(message: &[u8], text: &str) -> Vec<u8> {
    let mut upper = message.to_vec();
    if question(message).as_deref() == Some(text) {
        upper[HEADER_BYTES..HEADER_BYTES + text.len() + 1].make_ascii_uppercase();
    }
    upper
}
