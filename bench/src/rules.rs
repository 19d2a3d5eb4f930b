//! What rules cost with a long list: bytes for a name, time to read it, and time for an answer about a name or an address. Times
//! are those of whole answers ([`Rules::judge_name`], [`Rules::judge_address`]) with the list less those without.

use crate::args::Args;
use adit::proto::rules::{DefaultAction, List, Ports, RuleSet, Rules, Service, Who};
use adit::proto::target::{Host, Target};
use std::hint::black_box;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

const DEFAULT_NAMES: u64 = 200_000;
/// Different questions of each kind, so that they do not all meet the same cached lines.
const QUESTIONS: usize = 8192;
/// Each kind is measured so often; the best counts, as what else runs on the machine only ever adds.
const ROUNDS: usize = 15;

pub fn run(args: &Args) -> io::Result<()> {
    let count = args.count.unwrap_or(DEFAULT_NAMES);
    let names: Vec<String> = (0..count).map(listed).collect();
    let text: String = names.iter().map(|name| format!("0.0.0.0 {name}\n")).collect();
    if let Some(file) = &args.write {
        std::fs::write(file, &text)?;
    }
    let load_ms = best(|| {
        let begin = Instant::now();
        black_box(List::parse("list", text.as_bytes()));
        begin.elapsed().as_secs_f64() * 1e3
    });
    let (list, _) = List::parse("list", text.as_bytes());
    println!(
        "names={} load_ms={load_ms:.1} bytes_per_name={:.2}",
        list.len(),
        list.bytes() as f64 / list.len() as f64
    );

    // The same with a port each.
    let text: String = names.iter().map(|name| format!("{name}:443\n")).collect();
    let (with_ports, _) = List::parse("ports", text.as_bytes());
    println!(
        "names_with_ports={} bytes_per_name_with_port={:.2}",
        with_ports.len(),
        with_ports.bytes() as f64 / with_ports.len() as f64
    );

    // With a name of 127 labels in it, no question is cut short.
    let deep = [text.as_bytes(), long(0).as_bytes()].concat();
    let nets: String = (0..count).map(|n| format!("{}\n", public(n, 0))).collect();
    let lists = [list, with_ports, List::parse("deep", &deep).0, List::parse("nets", nets.as_bytes()).0];
    println!(
        "networks={} bytes_per_network={:.2}",
        lists[3].len(),
        lists[3].bytes() as f64 / lists[3].len() as f64
    );
    let without = rules(Vec::new());
    let [names_only, with_ports, deep, nets] = lists.map(|list| rules(vec![Arc::new(list)]));
    let questions = |name: &dyn Fn(u64) -> String| -> Vec<Target> {
        (0..QUESTIONS as u64)
            .map(|n| Target { host: Host::Name(name(n).into()), port: 443, is_absolute: false })
            .collect()
    };
    let (hits, misses) = (questions(&|n| listed(n * 7919 % count)), questions(&unlisted));
    let longs = questions(&|n| long(n + 1));
    for (what, rules, asked) in [
        ("name_hit", &names_only, &hits),
        ("name_miss", &names_only, &misses),
        ("name_with_port_hit", &with_ports, &hits),
        ("name_with_port_miss", &with_ports, &misses),
        ("name_of_127_labels_miss", &names_only, &longs),
        ("name_of_127_labels_miss_in_a_deep_list", &deep, &longs),
    ] {
        let ns = |rules: &Rules| {
            per_answer_ns(asked, |target| drop(black_box(rules.judge_name(WHO, target, Service::Connect))))
        };
        println!("{what}_ns={:.0}", ns(rules) - ns(&without));
    }
    for (what, offset) in [("address_hit", 0), ("address_miss", 1)] {
        let ns = |rules: &Rules| {
            let mut n = 0;
            per_answer_ns(&misses, |target| {
                n = (n + 7919) % count;
                let address = IpAddr::V4(public(n, offset));
                drop(black_box(rules.judge_address(WHO, target, None, address, Service::Connect)));
            })
        };
        println!("{what}_ns={:.0}", ns(&nets) - ns(&without));
    }
    Ok(())
}

const WHO: Who<'static> = Who { address: IpAddr::V4(Ipv4Addr::LOCALHOST), user: None };

fn rules(deny_lists: Vec<Arc<List>>) -> Rules {
    let policy = RuleSet {
        clients: Vec::new(),
        deny: Vec::new(),
        deny_lists,
        allow: Vec::new(),
        allow_lists: Vec::new(),
        connect_ports: Ports::only(&[443]),
        http_ports: Ports::only(&[80]),
        default: DefaultAction::Allow,
    };
    Rules::new(policy, &[])
}

fn per_answer_ns(asked: &[Target], mut answer: impl FnMut(&Target)) -> f64 {
    best(|| {
        let begin = Instant::now();
        asked.iter().for_each(&mut answer);
        begin.elapsed().as_secs_f64() * 1e9 / asked.len() as f64
    })
}

fn best(mut measure: impl FnMut() -> f64) -> f64 {
    (0..ROUNDS).map(|_| measure()).fold(f64::INFINITY, f64::min)
}

/// The nth name of the list, of the kind that such lists have: two to five labels, 12 to 40 bytes.
fn listed(n: u64) -> String {
    const HOSTS: [&str; 8] =
        ["ads", "track", "pixel.cdn", "metrics", "s1.eu-west", "beacon", "stats.api", "t"];
    const WORDS: [&str; 8] = ["click", "media", "adserv", "banner", "count", "traffic", "popunder", "sync"];
    const ENDS: [&str; 5] = ["com", "net", "example", "co.test", "io"];
    let pick = |of: &'static [&'static str], from: u64| of[(from % of.len() as u64) as usize];
    let (host, word, end) = (pick(&HOSTS, n), pick(&WORDS, n / 8), pick(&ENDS, n / 64));
    format!("{host}.{word}-{:x}.{end}", n / 8 * 2_654_435_761 % (1 << 32))
}

/// A name as people visit them, which is in no list.
fn unlisted(n: u64) -> String {
    listed(n + (1 << 33)).replacen('.', ".www.", 1)
}

/// 127 labels in 253 bytes.
fn long(n: u64) -> String {
    (0..127)
        .map(|place| char::from(b'a' + ((n >> (place % 13)) % 26) as u8).to_string())
        .collect::<Vec<_>>()
        .join(".")
}

/// Public addresses, `offset` behind every fourth one.
fn public(n: u64, offset: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0B00_0000 + n as u32 * 4 + offset)
}
