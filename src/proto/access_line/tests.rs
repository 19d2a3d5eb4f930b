//! Each kind of exchange in each format.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::proto::reply::{Credentials, Refusal};
use crate::proto::rules::USERS_RULE;

const ENDED: UnixTime = UnixTime(1_795_187_045_123);
const GOT: Asked<'_> = Asked::Http { method: "GET", url: "http://example.org/news" };

fn target() -> Target {
    Target::from_authority(b"example.org:443").unwrap()
}

/// A tunnel that is done.
fn tunnel(target: &Target) -> Record<'_> {
    Record {
        client: "10.1.2.3:53122".parse().unwrap(),
        user: None,
        request: Asked::Connect(target),
        status: Some(200),
        via: Some("203.0.113.9:443".parse().unwrap()),
        rule: Some("default"),
        up_bytes: 1842,
        down_bytes: 90211,
        dns_ms: Some(3),
        dial_ms: Some(11),
        total_ms: 4210,
        end: "done",
        refusal: None,
        cut_because: None,
    }
}

/// What did not get as far as a destination.
fn refused<'a>(refusal: &'a Refusal, request: Asked<'a>, rule: Option<&'a str>) -> Record<'a> {
    Record {
        client: "10.1.2.3:53122".parse().unwrap(),
        user: None,
        request,
        status: Some(refusal.status()),
        via: None,
        rule,
        up_bytes: 0,
        down_bytes: 413,
        dns_ms: None,
        dial_ms: None,
        total_ms: 0,
        end: refusal.error_type(),
        refusal: Some(refusal),
        cut_because: None,
    }
}

fn line(format: LogFormat, record: &Record<'_>) -> String {
    let mut line = Vec::new();
    format.push_line(record, ENDED, &mut line);
    let allowed = |byte: &u8| matches!(byte, b' '..=b'~') || (format == LogFormat::Json && *byte >= 0x80);
    assert!(line.iter().all(allowed), "one line, of printable ASCII but for JSON: {line:?}");
    String::from_utf8(line).unwrap()
}

#[track_caller]
fn assert_lines(record: &Record<'_>, adit: &str, squid: &str, json: &str) {
    assert_eq!(line(LogFormat::Adit, record), format!("2026-11-20T15:04:05.123Z {adit}"));
    assert_eq!(line(LogFormat::Squid, record), format!("1795187045.123 {squid}"));
    assert_eq!(line(LogFormat::Json, record), format!("{{\"time\":\"2026-11-20T15:04:05.123Z\",{json}}}"));
}

#[test]
fn tunnel_done() {
    let target = target();
    assert_lines(
        &tunnel(&target),
        "10.1.2.3:53122 - CONNECT example.org:443 200 via=203.0.113.9:443 rule=default up=1842 down=90211 dns=3 dial=11 \
         total=4210 end=done",
        "  4210 10.1.2.3 TCP_TUNNEL/200 90211 CONNECT example.org:443 - HIER_DIRECT/203.0.113.9 -",
        r#""client":"10.1.2.3","client_port":53122,"user":null,"method":"CONNECT","target":"example.org:443","status":200,"via":"203.0.113.9","via_port":443,"rule":"default","up":1842,"down":90211,"dns":3,"dial":11,"total":4210,"end":"done""#,
    );
}

#[test]
fn tunnel_by_ipv6_of_a_user() {
    let target = Target::from_authority(b"[2001:db8::9]:8443").unwrap();
    let record = Record {
        client: "[2001:db8::1]:1234".parse().unwrap(),
        user: Some("alice"),
        via: Some("[2001:db8::9]:8443".parse().unwrap()),
        dns_ms: None,
        total_ms: 12_345_678,
        end: "client_reset",
        ..tunnel(&target)
    };
    assert_lines(
        &record,
        "[2001:db8::1]:1234 alice CONNECT [2001:db8::9]:8443 200 via=[2001:db8::9]:8443 rule=default up=1842 down=90211 dns=- \
         dial=11 total=12345678 end=client_reset",
        "12345678 2001:db8::1 TCP_TUNNEL/200 90211 CONNECT [2001:db8::9]:8443 alice HIER_DIRECT/2001:db8::9 -",
        r#""client":"2001:db8::1","client_port":1234,"user":"alice","method":"CONNECT","target":"[2001:db8::9]:8443","status":200,"via":"2001:db8::9","via_port":8443,"rule":"default","up":1842,"down":90211,"dns":null,"dial":11,"total":12345678,"end":"client_reset""#,
    );
}

#[test]
fn refusal() {
    let refusal = Refusal::PortNotAllowed { port: 22, option: "--connect-port" };
    let target = Target::from_authority(b"example.org:22").unwrap();
    assert_lines(
        &refused(&refusal, Asked::Connect(&target), Some("connect-port")),
        "10.1.2.3:53122 - CONNECT example.org:22 403 via=- rule=connect-port up=0 down=413 dns=- dial=- total=0 \
         end=http_request_denied",
        "     0 10.1.2.3 TCP_DENIED/403 413 CONNECT example.org:22 - HIER_NONE/- -",
        r#""client":"10.1.2.3","client_port":53122,"user":null,"method":"CONNECT","target":"example.org:22","status":403,"via":null,"via_port":null,"rule":"connect-port","up":0,"down":413,"dns":null,"dial":null,"total":0,"end":"http_request_denied""#,
    );
}

#[test]
fn plain_http_over_a_reused_connection() {
    let target = target();
    let record = Record { request: GOT, dns_ms: None, dial_ms: None, total_ms: 31, ..tunnel(&target) };
    assert_lines(
        &record,
        "10.1.2.3:53122 - GET http://example.org/news 200 via=203.0.113.9:443 rule=default up=1842 down=90211 dns=- dial=- \
         total=31 end=done",
        "    31 10.1.2.3 TCP_MISS/200 90211 GET http://example.org/news - HIER_DIRECT/203.0.113.9 -",
        r#""client":"10.1.2.3","client_port":53122,"user":null,"method":"GET","target":"http://example.org/news","status":200,"via":"203.0.113.9","via_port":443,"rule":"default","up":1842,"down":90211,"dns":null,"dial":null,"total":31,"end":"done""#,
    );
}

#[test]
fn nothing_understood() {
    assert_lines(
        &refused(&Refusal::BadRequest("why"), Asked::Nothing, None),
        "10.1.2.3:53122 - - - 400 via=- rule=- up=0 down=413 dns=- dial=- total=0 end=http_request_error",
        "     0 10.1.2.3 NONE_NONE/400 413 - error:invalid-request - HIER_NONE/- -",
        r#""client":"10.1.2.3","client_port":53122,"user":null,"method":null,"target":null,"status":400,"via":null,"via_port":null,"rule":null,"up":0,"down":413,"dns":null,"dial":null,"total":0,"end":"http_request_error""#,
    );
}

#[test]
fn a_login_that_failed_is_told_from_one_that_was_not_tried() {
    for (rule, why, adit, squid) in [
        (USERS_RULE, Credentials::Missing, " rule=users ", " - HIER_NONE/- -"),
        (WRONG_LOGIN_RULE, Credentials::Wrong, " rule=users:wrong ", " ? HIER_NONE/- -"),
    ] {
        let (target, refusal) = (target(), Refusal::NotAuthenticated(why));
        for client in ["10.1.2.3:53122", "[::ffff:10.1.2.3]:53122"] {
            let record = Record {
                client: client.parse().unwrap(),
                ..refused(&refusal, Asked::Connect(&target), Some(&rule))
            };
            let said = line(LogFormat::Adit, &record);
            assert!(said.contains("Z 10.1.2.3:53122 - CONNECT example.org:443 407 via=- "), "{said}");
            assert!(said.contains(adit) && said.ends_with(" end=http_request_denied"), "{said}");
            let said = line(LogFormat::Squid, &record);
            assert!(said.contains(" 10.1.2.3 TCP_DENIED/407 413 CONNECT example.org:443 "), "{said}");
            assert!(said.ends_with(squid), "{said}");
            let said = line(LogFormat::Json, &record);
            assert!(
                said.contains(&format!(r#""status":407,"via":null,"via_port":null,"rule":"{rule}""#)),
                "{said}"
            );
            assert!(said.contains(r#""client":"10.1.2.3","client_port":53122,"user":null"#), "{said}");
        }
    }
}

#[test]
fn squids_word_for_each_end() {
    let (target, via) = (target(), Some("203.0.113.9:80".parse().unwrap()));
    let connect = || Asked::Connect(&target);
    let no_name = Refusal::NameNotFound { rcode: 3 };
    let (bad, body) = (Refusal::BadTarget("why"), Refusal::BodyTimeout);
    let is = |record: &Record<'_>, wanted: &str| {
        let line = line(LogFormat::Squid, record);
        assert_eq!(line.split_ascii_whitespace().nth(3), Some(wanted), "{line}");
    };
    is(&Record { request: GOT, status: Some(404), ..tunnel(&target) }, "TCP_MISS/404");
    is(&Record { request: GOT, status: Some(403), ..tunnel(&target) }, "TCP_MISS/403");
    is(&Record { request: GOT, status: Some(101), ..tunnel(&target) }, "TCP_TUNNEL/101");
    is(&Record { request: GOT, via: None, ..tunnel(&target) }, "NONE_NONE/200");
    is(&Record { request: GOT, end: "client_reset", ..tunnel(&target) }, "TCP_MISS_ABORTED/200");
    is(&Record { request: GOT, status: None, end: "client_left", ..tunnel(&target) }, "TCP_MISS_ABORTED/000");
    is(&Record { status: None, end: "client_left", ..tunnel(&target) }, "NONE_NONE_ABORTED/000");
    is(
        &Record { request: Asked::Nothing, status: None, end: "client_left", ..tunnel(&target) },
        "NONE_NONE/000",
    );
    is(&Record { request: GOT, end: "http_response_incomplete", ..tunnel(&target) }, "TCP_MISS/200");
    is(&Record { end: "idle_timeout", ..tunnel(&target) }, "TCP_TUNNEL/200");
    is(&refused(&no_name, connect(), None), "NONE_NONE/502");
    is(&refused(&no_name, GOT, None), "TCP_MISS/502");
    is(&Record { via, ..refused(&Refusal::ConnectionRefused, connect(), None) }, "NONE_NONE/502");
    is(&Record { via, ..refused(&Refusal::ConnectionRefused, GOT, None) }, "TCP_MISS/502");
    is(&Record { via, ..refused(&Refusal::ResponseTimeout, GOT, None) }, "TCP_MISS/504");
    is(&Record { via, ..refused(&body, GOT, None) }, "NONE_NONE/408");
    is(&refused(&bad, GOT, None), "NONE_NONE/400");
    is(&refused(&Refusal::DeniedByDefault, GOT, None), "TCP_DENIED/403");
    is(&refused(&Refusal::Guarded { range: "private" }, connect(), None), "TCP_DENIED/403");
    is(&refused(&Refusal::ClientSessionLimit, Asked::Nothing, None), "TCP_DENIED/429");
    is(&refused(&Refusal::SessionLimit, Asked::Nothing, None), "NONE_NONE/503");
    is(&refused(&Refusal::ClientNotAllowed, Asked::Nothing, None), "TCP_DENIED/403");
    let early = line(LogFormat::Squid, &refused(&Refusal::ClientNotAllowed, Asked::Nothing, None));
    assert!(early.contains(" - error:transaction-end-before-headers - "), "{early}");
    let large = line(LogFormat::Squid, &refused(&Refusal::HeadTooLarge, Asked::Nothing, None));
    assert!(large.contains(" NONE_NONE/431 413 - error:request-too-large - "), "{large}");
    let direct = line(LogFormat::Squid, &Record { via, ..refused(&Refusal::ConnectionRefused, GOT, None) });
    assert!(direct.ends_with(" HIER_DIRECT/203.0.113.9 -"), "{direct}");
}

#[test]
fn nothing_forges_a_line_or_a_word() {
    let target = target();
    for (user, word, json) in [
        ("a b", "a%20b", r#""a b""#),
        ("a\r\n2026-", "a%0D%0A2026-", r#""a\u000D\u000A2026-""#),
        ("-", "%2D", r#""-""#),
        ("", "%", r#""""#),
        ("50%", "50%25", r#""50%""#),
        ("\"\\\u{7f}\u{0}", "\"\\%7F%00", r#""\"\\\u007F\u0000""#),
        ("\u{e4}\u{2028}\u{1f600}", "%C3%A4%E2%80%A8%F0%9F%98%80", "\"\u{e4}\u{2028}\u{1f600}\""),
    ] {
        let record = Record { user: Some(user), ..tunnel(&target) };
        let said = line(LogFormat::Adit, &record);
        assert!(said.contains(&format!(":53122 {word} CONNECT ")), "{said}");
        assert!(line(LogFormat::Squid, &record).contains(&format!(":443 {word} HIER_DIRECT")), "{user:?}");
        assert!(line(LogFormat::Json, &record).contains(&format!("\"user\":{json},")), "{user:?}");
    }
    // Neither URLs nor names of rules hold such bytes; if they did, they would be words all the same.
    let request = Asked::Http { method: "GE T", url: "http://a.test/%41\n407 rule=users:wrong" };
    let record = Record { request, rule: Some("deny:a b"), ..tunnel(&target) };
    let said = line(LogFormat::Adit, &record);
    assert!(said.contains(" GE%20T http://a.test/%41%0A407%20rule=users:wrong 200 "), "{said}");
    assert!(said.contains(" rule=deny:a%20b up="), "{said}");
    assert_eq!(said.split(' ').count(), 14);
    assert_eq!(line(LogFormat::Squid, &record).split(' ').filter(|word| !word.is_empty()).count(), 10);
}

#[test]
fn single_words_keep_their_dot_and_zones_are_left_out() {
    let target = Target::from_authority(b"printer.:443").unwrap();
    let record = Record { client: "[fe80::1%3]:1234".parse().unwrap(), ..tunnel(&target) };
    assert!(line(LogFormat::Adit, &record).contains("Z [fe80::1]:1234 - CONNECT printer.:443 200 "));
}
