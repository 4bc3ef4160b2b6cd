//! What cloud-init and a YAML reader get to see.

use std::io::{Cursor, Read};

use super::*;

fn documents(args: &SeedArgs) -> (String, String) {
    let documents = args.documents().unwrap();
    (String::from_utf8(documents.user_data).unwrap(), String::from_utf8(documents.meta_data).unwrap())
}

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hartvm-seed-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, contents: &str) -> PathBuf {
        std::fs::write(self.0.join(name), contents).unwrap();
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKxQ me@\"here\": # 'é'";

#[test]
fn nothing_asked_for_is_no_volume() {
    assert_eq!(SeedArgs::default().volume().unwrap(), None);
}

#[test]
fn a_user_with_key_and_password() {
    let dir = Dir::new("user");
    let args = SeedArgs {
        user: Some("o\"brien".into()),
        ssh_key: vec![dir.file("key.pub", &format!("# mine\n{KEY}\n\n"))],
        password: Some("geheim: \"x\"".into()),
        hostname: Some("box".into()),
        ..SeedArgs::default()
    };
    let hash = crypt::sha512("geheim: \"x\"".as_bytes(), &args.salt());
    let (user_data, meta_data) = documents(&args);
    assert_eq!(
        user_data,
        format!(
            "#cloud-config\n\
             ssh_pwauth: true\n\
             users:\n\
             \x20 - name: \"o\\\"brien\"\n\
             \x20   shell: /bin/bash\n\
             \x20   sudo: \"ALL=(ALL) NOPASSWD:ALL\"\n\
             \x20   lock_passwd: false\n\
             \x20   hashed_passwd: \"{hash}\"\n\
             \x20   ssh_authorized_keys:\n\
             \x20     - \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKxQ me@\\\"here\\\": # '\\xe9'\"\n"
        )
    );
    assert!(meta_data.starts_with("local-hostname: \"box\"\ninstance-id: \"hartvm-"), "{meta_data}");
    assert!(!user_data.contains("geheim"));
}

#[test]
fn without_a_user_the_images_own_is_meant() {
    let dir = Dir::new("own");
    let key = dir.file("key.pub", KEY);
    let (user_data, _) =
        documents(&SeedArgs { ssh_key: vec![key], password: Some("x".into()), ..SeedArgs::default() });
    assert!(user_data.starts_with("#cloud-config\nssh_pwauth: true\npassword: \"$6$"), "{user_data}");
    assert!(
        user_data.contains("\nchpasswd:\n  expire: false\nssh_authorized_keys:\n  - \"ssh-ed25519 "),
        "{user_data}"
    );
    let (user_data, _) = documents(&SeedArgs { user: Some("root".into()), ..SeedArgs::default() });
    assert_eq!(user_data, "#cloud-config\ndisable_root: false\nusers:\n  - name: \"root\"\n");
}

#[test]
fn an_instance_is_the_same_for_the_same_flags_only() {
    let named = |hostname: &str, password: &str| {
        let args = SeedArgs {
            hostname: Some(hostname.into()),
            password: Some(password.into()),
            ..SeedArgs::default()
        };
        documents(&args)
    };
    assert_eq!(named("a", "x"), named("a", "x"));
    assert_ne!(named("a", "x").1, named("a", "y").1);
    assert_ne!(named("a", "x").1.lines().last(), named("b", "x").1.lines().last());
}

#[test]
fn own_data_is_handed_on_as_it_is_or_joined() {
    let dir = Dir::new("data");
    let script = "#!/bin/sh\necho \u{e4} --==hartvm==\n";
    let file = dir.file("data", script);
    let own = SeedArgs { user_data: Some(file), ..SeedArgs::default() };
    assert_eq!(documents(&own).0, script);
    let joined = documents(&SeedArgs { user: Some("alice".into()), ..own }).0;
    let parts: Vec<&str> = joined.split("--==hartvm==").collect();
    assert!(joined.starts_with("Content-Type: multipart/mixed; boundary=\"==hartvm==\"\n"));
    assert_eq!((parts.len(), parts[3]), (4, "--\n"));
    let decoded = |part: &str| {
        let (header, body) = part.split_once("\n\n").unwrap();
        assert!(header.contains("base64"));
        String::from_utf8(STANDARD.decode(body.replace('\n', "")).unwrap()).unwrap()
    };
    assert_eq!(decoded(parts[1]), script);
    assert!(decoded(parts[2]).contains("- name: \"alice\""));
}

#[test]
fn keys_are_public_ones() {
    let dir = Dir::new("keys");
    let private = dir.file("id", "-----BEGIN OPENSSH PRIVATE KEY-----\nxyz\n");
    let error = format!("{:#}", public_keys(&private).unwrap_err());
    assert!(error.contains("private key") && error.contains("id.pub"), "{error}");
    dir.file("id.pub", KEY);
    assert_eq!(public_keys(&private).unwrap(), [KEY]);
    let two = dir.file("two", &format!("{KEY}\r\nno-pty ecdsa-sha2-nistp256 AAAA x\n"));
    assert_eq!(public_keys(&two).unwrap().len(), 2);
    for text in ["hello\n", "\n# nothing\n", "ssh-rsa AAAA\nhello\n"] {
        let error = format!("{:#}", public_keys(&dir.file("bad", text)).unwrap_err());
        assert!(error.contains("ssh-keygen"), "{error}");
    }
}

#[test]
fn names_that_no_guest_takes_are_refused() {
    for user in ["", "a b", "a:b", "-x", "a\nb", &"x".repeat(33)] {
        assert!(check_names(&SeedArgs { user: Some(user.into()), ..SeedArgs::default() }).is_err(), "{user}");
    }
    for name in ["", "a b", "-a", "a..b", "a\nb", "a_b", &"x".repeat(64)] {
        assert!(
            check_names(&SeedArgs { hostname: Some(name.into()), ..SeedArgs::default() }).is_err(),
            "{name}"
        );
    }
    let good = SeedArgs {
        user: Some("j\u{fc}rgen".into()),
        hostname: Some("a-1.example".into()),
        ..SeedArgs::default()
    };
    assert!(check_names(&good).is_ok());
    assert!(check_names(&SeedArgs { password: Some("a\nb".into()), ..SeedArgs::default() }).is_err());
}

#[test]
fn the_volume_has_what_cloud_init_looks_for() {
    let dir = Dir::new("volume");
    let network = dir.file("net", "version: 2\n");
    let args =
        SeedArgs { hostname: Some("box".into()), network_config: Some(network), ..SeedArgs::default() };
    let volume = args.volume().unwrap().unwrap();
    let system = fatfs::FileSystem::new(Cursor::new(volume), fatfs::FsOptions::new()).unwrap();
    assert_eq!(system.volume_label(), "CIDATA");
    let read = |name: &str| {
        let mut text = String::new();
        system.root_dir().open_file(name).unwrap().read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!(read("user-data"), "#cloud-config\n");
    assert_eq!(read("network-config"), "version: 2\n");
    assert!(read("meta-data").contains("instance-id"));
}
