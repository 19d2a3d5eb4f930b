//! Heads written anew, never copied (RFC 9110 7.6, RFC 9112): what goes on is what was understood, in our own version.

use std::io::Write;
use std::net::IpAddr;

use super::body::Framing;
use super::fields::{Upgrade, Version};
use super::head::{HTTP_PORT, HttpRequest};
use super::reply::ConnectionHeader;
use super::response::ResponseHead;
use super::target::{Target, push_decimal};

/// Longest name in `Via`.
pub const MAX_VIA_BYTES: usize = 64;
/// By how much a head can be longer when it is written anew, given a `Via` name of at most [`MAX_VIA_BYTES`].
pub const GROWTH_MAX_BYTES: usize = 256;

/// What a request becomes on its way to the origin.
#[derive(Clone, Copy, Debug)]
pub struct RequestEdit<'a> {
    /// Read from the request's authority: `Host` is written from it.
    pub target: &'a Target,
    /// Our name in `Via`; none is sent without one.
    pub via: Option<&'a str>,
    /// The client's address, if `Forwarded` is sent (RFC 7239).
    pub forwarded_for: Option<IpAddr>,
}

/// What a response becomes on its way to the client.
#[derive(Clone, Copy, Debug)]
pub struct ResponseEdit<'a> {
    /// How the client knows the end of the body. [`Framing::Chunked`] is never said to an HTTP/1.0 client.
    pub framing: Framing,
    /// What happens next to the client's connection. A 1xx never says that it ends.
    pub connection: ConnectionHeader,
    /// [`Upgrade::Asked`]: the response's `Upgrade` is passed on (101).
    pub upgrade: Upgrade,
    /// Our name in `Via`; none is sent without one.
    pub via: Option<&'a str>,
    /// Version of the request that is answered.
    pub client_version: Version,
}

/// Appends the head of a request in origin form to `out`.
pub fn request(request: &HttpRequest, edit: &RequestEdit, out: &mut Vec<u8>) {
    push(out, &[request.method.as_bytes(), b" "]);
    match (request.path.as_bytes(), request.method) {
        (b"", "OPTIONS") => out.push(b'*'),
        (b"" | [b'?', ..], _) => push(out, &[b"/", request.path.as_bytes()]),
        // Bytes, not an enum of ours.
        (path, _) => out.extend_from_slice(path),
    }
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    edit.target.push_host(HTTP_PORT, out);
    out.extend_from_slice(b"\r\n");
    request.fields.write(request.upgrade, None, out);
    push_framing(request.framing, out);
    if let Some(left) = request.max_forwards {
        push_number(b"Max-Forwards: ", u64::from(left.saturating_sub(1)), out);
    }
    push_upgrade(request.upgrade, out);
    push_via(edit.via, request.version, out);
    if let Some(address) = edit.forwarded_for {
        // Writing to a Vec cannot fail.
        let _ = match address.to_canonical() {
            IpAddr::V4(address) => write!(out, "Forwarded: for={address}\r\n"),
            IpAddr::V6(address) => write!(out, "Forwarded: for=\"[{address}]\"\r\n"),
        };
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of a response to `out`.
pub fn response(head: &ResponseHead, edit: &ResponseEdit, out: &mut Vec<u8>) {
    let digits = [head.status / 100, head.status / 10 % 10, head.status % 10].map(|digit| b'0' + digit as u8);
    push(out, &[b"HTTP/1.1 ", &digits, b" ", head.reason, b"\r\n"]);
    let without = match edit.client_version {
        Version::Http10 => Some(&b"trailer"[..]),
        Version::Http11 => None,
    };
    head.fields.write(edit.upgrade, without, out);
    let is_interim = head.status < 200;
    if !is_interim && head.status != 204 {
        match (edit.framing, head.content_length, edit.client_version) {
            (Framing::None, Some(length), _) => push_framing(Framing::Length(length), out),
            // The end of the connection is the end of the body.
            (Framing::Chunked, _, Version::Http10) => {}
            (framing, _, _) => push_framing(framing, out),
        }
    }
    match edit.connection {
        ConnectionHeader::Close if !is_interim => out.extend_from_slice(b"Connection: close\r\n"),
        // HTTP/1.1 needs no word for it.
        ConnectionHeader::Close | ConnectionHeader::KeepAlive => push_upgrade(edit.upgrade, out),
    }
    push_via(edit.via, head.version, out);
    out.extend_from_slice(b"\r\n");
}

fn push(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn push_framing(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => push_number(b"Content-Length: ", length, out),
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
}

fn push_upgrade(upgrade: Upgrade, out: &mut Vec<u8>) {
    match upgrade {
        Upgrade::None => {}
        Upgrade::Asked => out.extend_from_slice(b"Connection: upgrade\r\n"),
    }
}

/// With the version that was received (RFC 9110 7.6.3).
fn push_via(name: Option<&str>, version: Version, out: &mut Vec<u8>) {
    let Some(name) = name else { return };
    let version: &[u8] = match version {
        Version::Http10 => b"Via: 1.0 ",
        Version::Http11 => b"Via: 1.1 ",
    };
    push(out, &[version, name.as_bytes(), b"\r\n"]);
}

fn push_number(before: &[u8], number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(before);
    push_decimal(number, out);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
