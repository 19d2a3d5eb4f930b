#![allow(clippy::unwrap_used)]
use super::*;

/// Made by Apache 2.4.71: `touch F`, then `htpasswd -bB -C 5 F bcrypt 'correct horse'`, `-bm F apr1`, `-bs F sha`, `-b2 F sha256`,
/// `-b5 F sha512`, `-b2 -r 1000 F sha256-1000`, `-b5 -r 10000 F sha512-10000`, all with the same password.
const HTPASSWD: &str = "\
bcrypt:$2y$05$6MjFZchV5QXiLrCPjbNCruiAqx.9kzhhmaP7cMr1NUrSxexwm4d7i
apr1:$apr1$GfT4G6YC$ZiHpiz6A5DV35A8h37yx20
sha:{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=
sha256:$5$wRRe1L/5xkEu3Ptx$hTsQKFT8LMjxqVtWPUIWww/9sWl/xbOJ6O8KeRPmQo3
sha512:$6$1qu3O7AfiU42fgnh$.l.k16S70Cf7ixu8xJZgKXEFQFuBz45OvdERQQ1VtSG2cZFYYewWF6iGaaEekDdktImMa6iuD5P1PgErtF0AR0
sha256-1000:$5$rounds=1000$jhL7qhizaIBakNY9$ja.yvsJVDgLoKzefuPHUQ00N/Jm12lmdxKejPhQLZu7
sha512-10000:$6$rounds=10000$xShQPFGgoIbEmYHY$IrqHkeW6agTK9867M22iyhvE7GMuqVaVJRxiiue9XEuhExMF8BMgJfwLY5jlubzdVk9pHUV0ufXIP07vWu7D41
";
const PASSWORD: &[u8] = b"correct horse";

fn parse(text: &str) -> Users {
    Users::parse(text.as_bytes()).unwrap()
}

fn why(text: &str) -> (usize, BadUser) {
    let bad = Users::parse(text.as_bytes()).unwrap_err();
    (bad.line, bad.why)
}

/// Whether `password` is the one of `hash`.
fn is_right(hash: &str, password: &[u8]) -> bool {
    parse(&format!("u:{hash}")).verify(b"u", password).is_some()
}

#[track_caller]
fn all_right(vectors: &[(&str, &[u8])]) {
    for (hash, password) in vectors {
        assert!(is_right(hash, password), "{hash} {}", password.escape_ascii());
        let mut wrong = password.to_vec();
        wrong.push(b'x');
        assert!(!is_right(hash, &wrong), "{hash} {}", wrong.escape_ascii());
    }
}

/// Without a kind that this build does not know.
fn htpasswd() -> String {
    let is_known = |line: &&str| Users::parse(line.as_bytes()).is_ok();
    HTPASSWD.lines().filter(is_known).map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_file_of_apaches_own_tool() {
    let users = parse(&htpasswd());
    if cfg!(all(feature = "users-bcrypt", feature = "users-sha2")) {
        assert_eq!((users.len(), users.is_empty()), (7, false));
    }
    for line in htpasswd().lines() {
        let name = line.split(':').next().unwrap();
        assert_eq!(users.verify(name.as_bytes(), PASSWORD).as_deref(), Some(name));
        for wrong in [&b""[..], b"correct hors", b"correct horse ", b"correct horse\0"] {
            assert_eq!(users.verify(name.as_bytes(), wrong), None, "{name}");
        }
        for other in [name.to_uppercase(), format!("{name}x")] {
            assert_eq!(users.verify(other.as_bytes(), PASSWORD), None, "{other}");
        }
    }
}

/// `htpasswd -nbm empty ''`, and `openssl passwd -apr1` (`-1`) `-salt adit1234`. The one for
/// `myPassword` stands in Apache's manual on password formats.
#[test]
fn vectors_of_md5_crypt() {
    let long = b"a longer password than one block of the digest has bytes: sixty-four and some; and here are more of \
        them, up to 128 and more bytes";
    all_right(&[
        ("$apr1$jhmUyyMM$GvIYd05cz2w39.ZPMnWvD.", b""),
        ("$apr1$adit1234$JZaEMpUN5n1wI1f8DmyzZ.", PASSWORD),
        ("$apr1$adit1234$id.RncQ9FZhOQ/ZdJ26va1", long),
        ("$apr1$qHDFfhPC$nITSVHgYbDAK1Y0acGRnY0", b"myPassword"),
        ("$1$adit1234$PM7m.2hN7S/4JGPxLvwi01", PASSWORD),
    ]);
}

#[test]
fn vectors_of_sha() {
    all_right(&[
        // Apache's manual on password formats.
        ("{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=", b"myPassword"),
        ("{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=", b""),
    ]);
}

/// The vectors of crypt_blowfish, computed once more by libxcrypt; those with an empty and a German password are by `htpasswd -nbB`.
#[cfg(feature = "users-bcrypt")]
#[test]
fn vectors_of_bcrypt() {
    all_right(&[
        ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", b"U*U"),
        ("$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", b"U*U"),
        ("$2y$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK", b"U*U*"),
        ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy", b""),
        ("$2y$05$l5OFCNSSGEYv1q/YTwJZEO.FvEej2tXyTAw1PKPKnZrtYX1U.DLlq", b""),
        ("$2y$05$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq", b"\xa3"),
        ("$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e", b"\xff\xff\xa3"),
        ("$2y$05$YVmJSAr6GW1ssKnVYyoH9uU7FHgTiaMYgkLUThvBcBeGWtpVFCIfS", "pässwörd: ß".as_bytes()),
        ("$2y$04$Ep/ySr7WYcLX1YdS4DVPKuWiiXRAlfyfbcayGj/uhpl/EtphTsdf2", &[b'x'; 71]),
    ]);
}

/// The first by `htpasswd -nbB -C 4 long` with 72 x and one y, the second a vector of crypt_blowfish.
#[cfg(feature = "users-bcrypt")]
#[test]
fn bcrypt_takes_72_bytes_as_apache_does() {
    let hash = "$2y$04$j4fKicGbgGdCoFuR.tcdSOSbmC9Z7R6EJCesT4360KeCirgIwrrNO";
    for (right, password) in [(true, 72), (true, 73), (true, 256), (false, 71)] {
        assert_eq!(is_right(hash, &vec![b'x'; password]), right, "{password}");
    }
    let hash = "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui";
    let password =
        b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789chars after 72 are ignored";
    assert!(is_right(hash, password) && is_right(hash, &password[..72]) && !is_right(hash, &password[..71]));
}

/// The vectors of Drepper's paper with the salts cut to what is written, once more by libxcrypt; `openssl passwd -5` (`-6`).
#[cfg(feature = "users-sha2")]
#[test]
fn vectors_of_sha_crypt() {
    let very_long = b"a very much longer text to encrypt.  This one even stretches over morethan one line.";
    let long = b"a longer password than one block of the digest has bytes: sixty-four and some; and here are more of \
        them, up to 128 and more bytes";
    all_right(&[
        ("$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", b"Hello world!"),
        ("$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA", b"Hello world!"),
        ("$5$rounds=1400$anotherlongsalts$Rx.j8H.h8HjEDGomFU8bDkXm3XIUnzyxf12oP84Bnq1", very_long),
        (
            "$5$rounds=5000$toolongsaltstrin$Un/5jzAHMgOGZ5.mWJpuVolil07guHPvOW8mGRcvxa5",
            b"This is just a test",
        ),
        ("$5$adit1234$FDXaPcOdJr2qcimB/L8TDpbblcXqL6EtZMA41mIGhr1", PASSWORD),
        ("$5$sixteencharacter$cdJ3I7n.QQqBiWeXrCBM8MRFaU08pvlRxtnlgFBffq9", long),
        (
            "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
            b"Hello world!",
        ),
        (
            "$6$rounds=1400$anotherlongsalts$POfYwTEok97VWcjxIiSOjiykti.o/pQs.wPvMxQ6Fm7I6IoYN3CmLs66x9t0oSwbtEW7o7UmJEiDwGqd8p4ur1",
            very_long,
        ),
        (
            "$6$adit1234$riCQDdf6lwoP3pmH8u8wOR5sIXtiGUj5KLVmaCM1FF0WTteZieJVjEgCPIzj.q73Nl6Phhoid7Dm.o0w2RS9m/",
            PASSWORD,
        ),
        (
            "$6$sixteencharacter$OBhJofwj8di1okuhV3kOJmsmo3260M2VrRPICBVr/gqpSjSNjmX95ww8E/IXlPMHiJPQrPQyldXRycCMsHMaI1",
            long,
        ),
    ]);
}

#[test]
fn lines_are_read_as_apache_reads_them() {
    let hash = "{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=";
    let text = format!(
        "# made by hand\n\n  \t\n   # x:y\na:{hash}\r\n \tb:{hash} \nc:{hash}:Carol: the third\nd e:{hash}"
    );
    let users = parse(&text);
    assert_eq!(users.len(), 4);
    for name in ["a", "b", "c", "d e"] {
        assert_eq!(users.verify(name.as_bytes(), b"myPassword").as_deref(), Some(name));
    }
    assert_eq!(users, parse(&text));
    assert_ne!(users, parse(&format!("a:{hash}")));
    for empty in ["", "\n", "# nobody\n"] {
        let users = parse(empty);
        assert_eq!((users.len(), users.is_empty(), users.verify(b"", b"")), (0, true, None));
    }
}

#[test]
fn bad_lines_are_named_with_what_is_wrong() {
    let good = "a:{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=";
    for (line, expected) in [
        ("alice", BadUser::NoColon),
        ("\u{feff}", BadUser::NoColon),
        (":{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=", BadUser::Name),
        ("a\tb:{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=", BadUser::Name),
        ("a\u{85}b:{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=", BadUser::Name),
        ("a\0:{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=", BadUser::Name),
        (good, BadUser::Twice),
        ("b:", BadUser::NoHash),
        ("b::x", BadUser::NoHash),
        // `htpasswd -nbd des secret`, and a password of 13 letters, which looks the same.
        ("des:XMQmVV1Ak214U", BadUser::Des),
        ("des:correcthorse1", BadUser::Des),
        // `htpasswd -nbp plain secret`
        ("plain:secret", BadUser::PlainText),
        ("plain:correct-horse", BadUser::PlainText),
        ("plain:5f4dcc3b5aa765d61d8327deb882cf99", BadUser::PlainText),
        ("b:_J9..rasmBYk8r9AiWNc", BadUser::PlainText),
        ("b:sha1:VBPuJHI7uixaa6LQGWx4s+5GKNE=", BadUser::PlainText),
        ("b:$", BadUser::UnknownHash),
        ("b:{", BadUser::UnknownHash),
        ("b:{SSHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=", BadUser::UnknownHash),
        ("b:{sha}VBPuJHI7uixaa6LQGWx4s+5GKNE=", BadUser::UnknownHash),
        ("b:{PLAIN}secret", BadUser::UnknownHash),
        ("b:$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7", BadUser::UnknownHash),
        ("b:$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b27lA", BadUser::UnknownHash),
        // The mistaken one of crypt_blowfish before 1.1.
        ("b:$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", BadUser::UnknownHash),
        ("b:{SHA}", BadUser::Garbled),
        ("b:{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE", BadUser::Garbled),
        ("b:{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNF=", BadUser::Garbled),
        ("b:{SHA}VBPuJHI7uixaa6LQGWx4s+5GKA==", BadUser::Garbled),
        ("b:$apr1$", BadUser::Garbled),
        ("b:$apr1$GfT4G6YC", BadUser::Garbled),
        ("b:$apr1$GfT4G6YC$", BadUser::Garbled),
        ("b:$apr1$GfT4G6YC1$ZiHpiz6A5DV35A8h37yx20", BadUser::Garbled),
        ("b:$apr1$GfT4G6YC$ZiHpiz6A5DV35A8h37yx2", BadUser::Garbled),
        ("b:$apr1$GfT4G6YC$ZiHpiz6A5DV35A8h37yx200", BadUser::Garbled),
        // Bits behind the last byte.
        ("b:$apr1$GfT4G6YC$ZiHpiz6A5DV35A8h37yx2z", BadUser::Garbled),
        ("b:$apr1$GfT4G6YC$ZiHpiz6A5DV35A8h37yx2-", BadUser::Garbled),
        ("b:$1$GfT4G6YC$ZiHpiz6A5DV35A8h37yx2 0", BadUser::Garbled),
    ] {
        assert_eq!(why(&format!("{good}\n\n{line}\n{good}\n")), (3, expected), "{line}");
    }
    assert_eq!(
        Users::parse(b"\xff:{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE="),
        Err(BadUsers { line: 1, why: BadUser::Name })
    );
}

#[cfg(feature = "users-bcrypt")]
#[test]
fn bcrypt_is_taken_whole_and_up_to_a_cost() {
    let with = |cost: &str| format!("b:$2y${cost}$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW");
    for (cost, expected) in [
        ("18", BadUser::BcryptCost),
        ("99", BadUser::BcryptCost),
        ("03", BadUser::Garbled),
        ("5", BadUser::Garbled),
        ("005", BadUser::Garbled),
        ("+5", BadUser::Garbled),
        ("", BadUser::Garbled),
    ] {
        assert_eq!(why(&with(cost)), (1, expected), "{cost}");
    }
    for cost in ["04", "17"] {
        assert_eq!(parse(&with(cost)).len(), 1);
    }
    for hash in [
        "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe",
        "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeWW",
        "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe$",
        // Bits behind the last byte of the salt and of the digest: crypt(3) never writes these.
        "$2y$05$CCCCCCCCCCCCCCCCCCCCCCE5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeX",
    ] {
        assert_eq!(why(&format!("b:{hash}")), (1, BadUser::Garbled), "{hash}");
    }
}

#[cfg(feature = "users-sha2")]
#[test]
fn sha_crypt_is_taken_whole_and_up_to_a_number_of_rounds() {
    let with =
        |rounds: &str| format!("b:$5${rounds}$wRRe1L/5xkEu3Ptx$hTsQKFT8LMjxqVtWPUIWww/9sWl/xbOJ6O8KeRPmQo3");
    for (rounds, expected) in [
        ("rounds=999", BadUser::ShaRounds),
        ("rounds=1", BadUser::ShaRounds),
        ("rounds=1000001", BadUser::ShaRounds),
        ("rounds=999999999", BadUser::ShaRounds),
        ("rounds=99999999999999999999", BadUser::ShaRounds),
        ("rounds=", BadUser::Garbled),
        ("rounds=0", BadUser::Garbled),
        ("rounds=05000", BadUser::Garbled),
        ("rounds=+5000", BadUser::Garbled),
        ("rounds=5000x", BadUser::Garbled),
        // What takes itself for a salt.
        ("Rounds=5000", BadUser::Garbled),
    ] {
        assert_eq!(why(&with(rounds)), (1, expected), "{rounds}");
    }
    for rounds in ["rounds=1000", "rounds=5000", "rounds=1000000"] {
        assert_eq!(parse(&with(rounds)).len(), 1);
    }
    for hash in [
        "$5$wRRe1L/5xkEu3Ptxx$hTsQKFT8LMjxqVtWPUIWww/9sWl/xbOJ6O8KeRPmQo3",
        "$5$wRRe1L/5xkEu3Ptx$hTsQKFT8LMjxqVtWPUIWww/9sWl/xbOJ6O8KeRPmQo",
        "$5$wRRe1L/5xkEu3Ptx$hTsQKFT8LMjxqVtWPUIWww/9sWl/xbOJ6O8KeRPmQoz",
        "$6$wRRe1L/5xkEu3Ptx$hTsQKFT8LMjxqVtWPUIWww/9sWl/xbOJ6O8KeRPmQo3",
        "$5$rounds=5000",
        "$5$",
        "$6$$",
    ] {
        assert_eq!(why(&format!("b:{hash}")), (1, BadUser::Garbled), "{hash}");
    }
}

#[cfg(not(all(feature = "users-bcrypt", feature = "users-sha2")))]
#[test]
fn kinds_that_were_left_out_are_refused() {
    let left_out: Vec<_> = HTPASSWD.lines().filter_map(|line| Users::parse(line.as_bytes()).err()).collect();
    assert!(!left_out.is_empty());
    assert!(
        left_out.iter().all(|bad| *bad == BadUsers { line: 1, why: BadUser::NotBuiltIn }),
        "{left_out:?}"
    );
}

#[test]
fn a_line_that_is_cut_off_is_never_taken() {
    for line in htpasswd().lines() {
        let whole = parse(line);
        for end in 1..line.len() {
            assert!(Users::parse(&line.as_bytes()[..end]).is_err(), "{}", &line[..end]);
        }
        assert_eq!(whole.len(), 1);
    }
}

/// Each byte of the file replaced by each of many others: never a panic, and where the file is still taken, one user's
/// name, salt, cost or digest has changed.
#[test]
fn damaged_files_are_refused_or_differ() {
    let text = htpasswd().trim_end().as_bytes().to_vec();
    let whole = Users::parse(&text).unwrap();
    for at in 0..text.len() {
        for byte in *b"\0\n\r #$:./09AZaz{}=+\x7f\x80\xff" {
            let mut damaged = text.clone();
            if std::mem::replace(&mut damaged[at], byte) == byte {
                continue;
            }
            match Users::parse(&damaged) {
                // 2a, 2b and 2y mean the same.
                Ok(users) => assert!(users != whole || (text[at], byte) == (b'y', b'a'), "{at} {byte}"),
                Err(bad) => {
                    let lines = damaged.iter().filter(|&&byte| byte == b'\n').count() + 1;
                    assert!((1..=lines).contains(&bad.line) && !bad.why.expected().is_empty());
                }
            }
        }
    }
}

#[test]
fn limits() {
    let hash = "{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=";
    let name = "é".repeat(127) + "x";
    assert_eq!(parse(&format!("{name}:{hash}")).len(), 1);
    assert_eq!(why(&format!("\n{name}x:{hash}")), (2, BadUser::Name));

    // In falling order: each goes to the front of the index.
    let full: String = (0..MAX_USERS).rev().map(|n| format!("u{n:05}:{hash}\n")).collect();
    let users = parse(&full);
    assert_eq!(users.len(), MAX_USERS);
    for name in ["u00000", "u05000", "u09999"] {
        assert_eq!(users.verify(name.as_bytes(), b"myPassword").as_deref(), Some(name));
    }
    assert_eq!(why(&format!("{full}one-more:{hash}")), (MAX_USERS + 1, BadUser::TooMany));

    let comment = format!("a:{hash}\n#{}", "x".repeat(MAX_FILE_BYTES));
    assert_eq!(parse(&comment[..MAX_FILE_BYTES]).len(), 1);
    assert_eq!(why(&comment[..=MAX_FILE_BYTES]), (2, BadUser::FileTooLarge));

    // 256 and 257 letters x.
    assert!(is_right("{SHA}U9q1UXAWVzVu2LdWU4ZaLnqcL0I=", &[b'x'; MAX_PASSWORD_BYTES]));
    assert!(!is_right("{SHA}B5YGd0i2sMKvhkZWo5n3ci75KDo=", &[b'x'; MAX_PASSWORD_BYTES + 1]));
}

#[test]
fn unknown_users_are_taken_for_known_ones_always_the_same() {
    let users = parse(&htpasswd());
    let stand_in = |name: &str| users.stand_in(name.as_bytes()).unwrap().name.clone();
    let names: Vec<String> = (0..1_000).map(|n| format!("nobody{n}")).collect();
    let taken_for: std::collections::BTreeSet<_> = names.iter().map(|name| stand_in(name)).collect();
    assert_eq!(taken_for.len(), users.len(), "every user stands in for somebody");
    assert!(names.iter().all(|name| stand_in(name) == stand_in(name)));
    // Another value has another key: out of 1,000 names some are taken for another user.
    let others = parse(&htpasswd());
    assert!(names.iter().any(|name| others.stand_in(name.as_bytes()).unwrap().name != stand_in(name)));
}

/// What a login with a wrong password computes.
fn cost(users: &Users, name: &str) -> Vec<(u8, u32)> {
    hash::COMPUTED.take();
    assert_eq!(users.verify(name.as_bytes(), b"wrong"), None);
    hash::COMPUTED.take()
}

#[test]
fn unknown_users_cost_what_a_wrong_password_costs() {
    for line in htpasswd().lines() {
        let users = parse(line);
        let known = cost(&users, line.split(':').next().unwrap());
        assert_eq!(known.len(), 1);
        assert_eq!(cost(&users, "nobody"), known);
    }
    assert_eq!(cost(&parse(""), "nobody").len(), 1, "an empty file does not show either");
}

#[test]
fn unknown_users_cost_the_same_behind_a_reload() {
    const KINDS: [&str; 2] = ["$apr1$GfT4G6YC$ZiHpiz6A5DV35A8h37yx20", "{SHA}L55TUjtiq8FBorTWAZ0jy6g129A="];
    const USERS: usize = 50;
    const NAMES: usize = 200;
    let line = |at: usize| format!("user{at}:{}\n", KINDS[at % 2]);
    let file = |users: std::ops::Range<usize>| parse(&users.rev().map(line).collect::<String>());
    let old = file(0..USERS);
    let costs = |users: &Users| (0..NAMES).map(|at| cost(users, &format!("nobody{at}"))).collect::<Vec<_>>();
    let before = costs(&old);
    // One more, and one less: each name had the same chance to be its.
    for users in [0..USERS + 1, 1..USERS] {
        let mut new = file(users);
        new.keep_key_of(&old);
        let changed = before.iter().zip(costs(&new)).filter(|(before, now)| **before != *now).count();
        assert!(changed < NAMES / 10, "{changed} of {NAMES} show that they are in neither file");
    }
    // Of each kind as many as there are.
    let first = before.iter().filter(|cost| **cost == before[0]).count();
    assert!((NAMES / 5..NAMES * 4 / 5).contains(&first), "{first}");
}

#[test]
fn debug_shows_nothing_that_is_secret() {
    let users = parse("alice:{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=");
    assert_eq!(format!("{users:?}"), "Users(1)");
}
