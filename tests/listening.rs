//! Where the proxy listens, who reaches it there, and who shares the port.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use support::client::Client;
use support::namespace::{OWN_IPV4, OWN_IPV6, own, write_etc};
use support::origin::Origin;
use support::proxy::{ALLOW_LOOPBACK, Proxy};

/// The status of a CONNECT from there, and the client as the access line names it.
fn connect(proxy: &Proxy, from: SocketAddr, target: &str) -> (u16, String) {
    let mut client = Client::dial(from);
    client.send_connect(target);
    let status = client.read_head().status;
    // Of a dual-stack listener an IPv4 client has its IPv4 address.
    let local = SocketAddr::new(client.local.ip().to_canonical(), client.local.port());
    drop(client);
    (status, proxy.access_of(local).client)
}

#[test]
fn the_unspecified_ipv6_address_serves_both_families() {
    let origin = Origin::echo();
    let proxy = Proxy::open(&["--listen", "[::]:0", "--client", "127.0.0.1/32"]);
    let port = proxy.addr.port();
    let target = origin.addr.to_string();
    let (status, client) = connect(&proxy, (Ipv4Addr::LOCALHOST, port).into(), &target);
    assert_eq!(status, 200, "IPv4 inside IPv6 is judged as IPv4");
    assert!(client.starts_with("127.0.0.1:"), "{client}");
    let (status, client) = connect(&proxy, (Ipv6Addr::LOCALHOST, port).into(), &target);
    assert_eq!(status, 403, "only the IPv4 network was allowed");
    assert!(client.starts_with("[::1]:"), "{client}");
}

#[test]
fn several_addresses_are_served_at_once() {
    let origin = Origin::echo();
    let options = [&ALLOW_LOOPBACK[..], &["-l", "127.0.0.1:0", "-l", "127.0.0.2:0", "-n", "2"]].concat();
    let proxy = Proxy::start(&options);
    let second = proxy.log.wait_nth("the second address", 2, |line| line.contains("listening on "));
    let second = support::proxy::listening_on(&second).unwrap();
    for address in [proxy.addr, second] {
        for _ in 0..8 {
            assert_eq!(connect(&proxy, address, &origin.addr.to_string()).0, 200);
        }
    }
}

#[test]
fn sharing_a_port_with_another_process_is_said() {
    let origin = Origin::echo();
    let old = Proxy::open(&[]);
    let address = old.addr.to_string();
    let new = Proxy::open(&["--listen", &address]);
    new.log.wait("a warning", |line| {
        line.contains(" WARN ") && line.contains(&address) && line.contains("shares")
    });
    // That is how a running proxy is replaced: the old one goes, and the new one has it all.
    old.stop();
    for _ in 0..8 {
        assert_eq!(connect(&new, new.addr, &origin.addr.to_string()).0, 200);
    }
    let alone = Proxy::open(&[]);
    assert!(!alone.log.all().iter().any(|line| line.contains(" WARN ")), "{:?}", alone.log.all());
}

#[test]
fn dialing_oneself_through_any_address_of_the_machine_is_a_loop() {
    own("dialing_oneself_through_any_address_of_the_machine_is_a_loop", || {
        write_etc("hosts", format!("{OWN_IPV4} myself.test\n{OWN_IPV6} myself.test\n"));
        let origin = Origin::echo_on("[::]:0");
        let (four, six) = (OWN_IPV4.to_string(), format!("[{OWN_IPV6}]"));
        let mapped = format!("[::ffff:{OWN_IPV4}]");
        let of_ipv4 = [&*four, &mapped, "127.0.0.1", "127.9.9.9", "localhost", "0.0.0.0", "myself.test"];
        let of_ipv6 = [&*six, "[::1]", "[::]"];
        // No rule lifts it.
        let open = ["--allow", "*", "--client", "0.0.0.0/0", "--client", "::/0"];
        let listeners = [
            ("0.0.0.0:0", of_ipv4.to_vec()),
            ("[::]:0", [&of_ipv4[..], &of_ipv6].concat()),
            (&*format!("{four}:0"), vec![&*four, &*mapped]),
        ];
        for (listen, themselves) in listeners {
            let proxy = Proxy::start(&[&open[..], &["--listen", listen]].concat());
            for destination in themselves {
                let mut client = Client::dial((OWN_IPV4, proxy.addr.port()).into());
                client.send_connect(&format!("{destination}:{}", proxy.addr.port()));
                let answer = client.read_refusal();
                let what = format!("{destination} of {listen}: {answer:?}");
                assert_eq!(
                    (answer.head.status, answer.error.as_str()),
                    (502, "proxy_loop_detected"),
                    "{what}"
                );
                let local = SocketAddr::new(client.local.ip().to_canonical(), client.local.port());
                let access = proxy.access_of(local);
                assert_eq!((&*access.rule, &*access.end), ("guard", "proxy_loop_detected"), "{what}");
                // The same machine on another port is a destination like any other.
                let target = format!("{destination}:{}", origin.addr.port());
                assert_eq!(connect(&proxy, (OWN_IPV4, proxy.addr.port()).into(), &target).0, 200, "{what}");
            }
        }
    });
}
