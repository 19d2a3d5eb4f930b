//! Tests in namespaces of their own (Linux): an empty `/etc`, and a network with nothing but loopback, where port 53 is free and
//! this machine has one more address of each family. Nobody else sees any of it, and it is gone with the test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

/// An address of the machine, inside, that is not loopback.
pub const OWN_IPV4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// Its IPv6 address.
pub const OWN_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1));

/// Set for the test inside.
const INSIDE: &str = "ADIT_TEST_NAMESPACE";
/// Stands in the `/etc` of the namespace and in no other.
const MARK: &str = "/etc/adit-test-namespace";

/// Gives way to the test binary. Python is what `scripts/check.sh` needs anyway; `ip` is not. The numbers are the requests
/// SIOCSIFFLAGS (UP, LOOPBACK, RUNNING), SIOCSIFADDR and SIOCSIFNETMASK (netdevice(7)); with less than /32 all of the network
/// would be local.
const SETUP: &str = r#"
mount -t tmpfs tmpfs /etc && : >/etc/adit-test-namespace && python3 -c '
import fcntl, socket, struct
four, six = socket.socket(), socket.socket(socket.AF_INET6)
fcntl.ioctl(four, 0x8914, struct.pack("16sh22x", b"lo", 0x49))
for request, address in [(0x8916, "10.77.0.1"), (0x891C, "255.255.255.255")]:
    fcntl.ioctl(four, request, struct.pack("16sHH4s16x", b"lo:1", socket.AF_INET, 0, socket.inet_aton(address)))
fcntl.ioctl(six, 0x8916, struct.pack("16sIi", socket.inet_pton(socket.AF_INET6, "fd77::1"), 128, socket.if_nametoindex("lo")))
' && exec "$@"
"#;

/// Runs the body of the test `name` inside: the test binary is started once more there, for this test alone. Where that cannot
/// be, the test fails: it has tested nothing.
#[track_caller]
pub fn own(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    let output = unshare
        .args(["--mount", "--net", "sh", "-c", SETUP, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap_or_else(|error| panic!("nothing was tested: no unshare(1): {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        out.contains("running 1 test\n"),
        "nothing was tested: no namespaces of its own for {name} (root, or user namespaces, and python3 are needed): {out}{err}"
    );
    assert!(
        output.status.success() && out.contains(" 1 passed;"),
        "inside its namespaces {name} failed:\n{out}\n{err}"
    );
}

/// Writes a file of the `/etc` inside.
#[track_caller]
pub fn write_etc(name: &str, text: impl AsRef<[u8]>) {
    std::fs::write(etc(name), text).unwrap();
}

/// A path in the `/etc` inside. The machine's own is safe from tests.
#[track_caller]
pub fn etc(name: &str) -> PathBuf {
    assert!(Path::new(MARK).exists(), "this is the machine's own /etc");
    Path::new("/etc").join(name)
}
