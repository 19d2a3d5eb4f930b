//! The input is a chunked body and what follows it, as a client or an origin sends it.
#![no_main]

use adit::proto::body::{Body, Chunks, Framing};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, PartialEq)]
struct Result {
    out: Vec<u8>,
    taken: usize,
    complete: bool,
}

fuzz_target!(|bytes: &[u8]| {
    let kept = pass(bytes, Chunks::Keep, &[]);
    let stripped = pass(bytes, Chunks::Strip, &[]);
    // Byte by byte is dear with long lines, and says no more about them.
    let pieces: &[usize] = if bytes.len() <= 1024 { &[1, 2, 3, 64] } else { &[64, 1000] };
    let mut cuts: Vec<Vec<usize>> = pieces.iter().map(|&n| (0..bytes.len()).step_by(n).collect()).collect();
    cuts.push(random_cut(bytes));
    for cut in cuts {
        assert_eq!(pass(bytes, Chunks::Keep, &cut), kept, "cut at {cut:?}");
        assert_eq!(pass(bytes, Chunks::Strip, &cut), stripped, "cut at {cut:?}");
    }
    assert_eq!(kept.is_some(), stripped.is_some(), "what is bad is bad for everybody");
    let (Some(kept), Some(stripped)) = (kept, stripped) else { return };
    assert_eq!((kept.taken, kept.complete), (stripped.taken, stripped.complete));
    check_subsequence(&kept.out, &bytes[..kept.taken]);
    check_subsequence(&stripped.out, &kept.out);
    assert_eq!(pass(&kept.out, Chunks::Strip, &[]).expect("what goes on is good").out, stripped.out);
    let again = pass(&kept.out, Chunks::Keep, &[]).expect("what goes on is good");
    assert_eq!((&again.out, again.taken, again.complete), (&kept.out, kept.out.len(), kept.complete));
    if kept.complete {
        assert_eq!(decode(&kept.out), stripped.out);
        for end in [0, kept.taken / 2, kept.taken - 2, kept.taken - 1] {
            let prefix = pass(&bytes[..end], Chunks::Keep, &[]).expect("a prefix of a good body is good");
            assert!(!prefix.complete && kept.out.starts_with(&prefix.out), "until {end}");
        }
    }
});

/// Shows the body in pieces that end at `ends` and at its end; `None` if it is bad.
fn pass(input: &[u8], chunks: Chunks, ends: &[usize]) -> Option<Result> {
    let mut body = Body::new(Framing::Chunked, chunks);
    let (mut out, mut taken) = (Vec::new(), 0);
    for &end in ends.iter().chain([&input.len()]) {
        let shown = &input[taken..end];
        let mut bytes = shown.to_vec();
        let passed = body.pass(&mut bytes).ok()?;
        assert!(passed.kept <= passed.taken && passed.taken <= shown.len());
        assert_eq!(bytes[passed.taken..], shown[passed.taken..], "what was not taken is whole");
        assert!(passed.taken == shown.len() || body.is_complete() || shown.len() - passed.taken < 8 * 1024);
        out.extend_from_slice(&bytes[..passed.kept]);
        taken += passed.taken;
    }
    Some(Result { out, taken, complete: body.is_complete() })
}

fn random_cut(bytes: &[u8]) -> Vec<usize> {
    let mut seed =
        bytes.iter().fold(0x811c_9dc5_u32, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let mut ends = vec![0];
    while let Some(&end) = ends.last() {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let end = end + (seed >> 16) as usize % 40;
        if end >= bytes.len() {
            break;
        }
        ends.push(end);
    }
    ends
}

fn check_subsequence(part: &[u8], whole: &[u8]) {
    let mut whole = whole.iter();
    assert!(part.iter().all(|byte| whole.any(|other| other == byte)), "something was added");
}

/// The payload of a body that is good and whole, read as simply as possible.
fn decode(mut rest: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").expect("a line with a size");
        let digits = std::str::from_utf8(&rest[..end]).expect("digits");
        assert!((1..=16).contains(&end) && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digits:?}");
        let size = usize::from_str_radix(digits, 16).expect("a size");
        rest = &rest[end + 2..];
        if size == 0 {
            break;
        }
        payload.extend_from_slice(&rest[..size]);
        rest = rest[size..].strip_prefix(b"\r\n").expect("the end of a chunk");
    }
    let trailers = rest.strip_suffix(b"\r\n").expect("an empty line");
    for line in trailers.split_inclusive(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r\n").expect("whole lines");
        let name =
            String::from_utf8_lossy(line.split(|&byte| byte == b':').next().expect("a name")).to_lowercase();
        assert!(line.contains(&b':') && !name.is_empty() && !name.contains([' ', '\t']), "{name:?}");
        assert!(
            !["content-length", "transfer-encoding", "host", "connection", "set-cookie"].contains(&&*name)
        );
    }
    payload
}
