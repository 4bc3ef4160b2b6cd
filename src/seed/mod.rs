//! What cloud-init in a guest is to set up: the flags `--user`, `--ssh-key` and others become a NoCloud seed, which is a small
//! volume labelled CIDATA with the files `user-data` and `meta-data`.

mod crypt;
mod volume;
mod yaml;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::Usage;
use yaml::quoted;

/// By this label cloud-init finds the volume.
const LABEL: &str = "CIDATA";

/// Bytes of a file that a user hands on; more is a mistake.
const LIMIT: u64 = 64 << 20;

const HEADING: &str = "First boot (cloud-init)";

/// Flags for the guest's first boot.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = HEADING)]
pub(crate) struct SeedArgs {
    /// Make this user in the guest, who may use sudo
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,

    /// Let this public key in as the user of --user, or else as the image's own user (may be repeated). With the name of a
    /// private key, the .pub beside it is taken
    #[arg(long, value_name = "FILE")]
    pub(crate) ssh_key: Vec<PathBuf>,

    /// Password of the same user, also for ssh. The guest is given a hash of it
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) password: Option<String>,

    /// Name of the guest
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub(crate) hostname: Option<String>,

    /// Anything else that cloud-init is to do, in a form that it knows: `#cloud-config`, a script, MIME parts
    #[arg(long, value_name = "FILE")]
    pub(crate) user_data: Option<PathBuf>,

    /// How cloud-init is to set up the guest's network, in its own format; by DHCP if not given
    #[arg(long, value_name = "FILE")]
    pub(crate) network_config: Option<PathBuf>,

    /// Write the volume that the flags above become to FILE and exit; any machine takes it as a disk
    #[arg(long, value_name = "FILE")]
    pub(crate) dump_seed: Option<PathBuf>,
}

impl SeedArgs {
    fn is_empty(&self) -> bool {
        let Self { user, ssh_key, password, hostname, user_data, network_config, dump_seed: _ } = self;
        user.is_none()
            && ssh_key.is_empty()
            && password.is_none()
            && hostname.is_none()
            && user_data.is_none()
            && network_config.is_none()
    }

    /// The volume, if any flag asks for one.
    ///
    /// # Errors
    /// A value that cannot be right in any guest, or a file that cannot be read.
    pub(crate) fn volume(&self) -> Result<Option<Vec<u8>>> {
        if self.is_empty() {
            return Ok(None);
        }
        let documents = self.documents()?;
        let mut files =
            vec![("user-data", documents.user_data.as_slice()), ("meta-data", &documents.meta_data)];
        files.extend(documents.network_config.as_deref().map(|bytes| ("network-config", bytes)));
        volume::fat(LABEL, &files).map(Some).context("cannot make the volume for cloud-init")
    }

    /// Writes the volume to a file.
    ///
    /// # Errors
    /// As [`Self::volume`]; that there is nothing to write; and what the host says.
    pub(crate) fn dump(&self, path: &Path) -> Result<()> {
        let Some(volume) = self.volume()? else {
            return Err(Usage(
                "--dump-seed: there is nothing to write; add --user, --hostname or another of its flags"
                    .into(),
            )
            .into());
        };
        std::fs::write(path, volume).with_context(|| format!("--dump-seed: cannot write {}", path.display()))
    }

    fn documents(&self) -> Result<Documents> {
        check_names(self)?;
        let mut keys = Vec::new();
        for file in &self.ssh_key {
            keys.extend(public_keys(file)?);
        }
        let own = self.user_data.as_deref().map(|file| read("--user-data", file)).transpose()?;
        let network_config =
            self.network_config.as_deref().map(|file| read("--network-config", file)).transpose()?;
        let user_data = match (self.config(&keys), own) {
            (Some(config), Some(own)) => mime(&[&own, config.as_bytes()]),
            (None, Some(own)) => own,
            (config, None) => config.unwrap_or_else(|| "#cloud-config\n".into()).into_bytes(),
        };
        let mut meta_data = String::new();
        if let Some(name) = &self.hostname {
            let _ = writeln!(meta_data, "local-hostname: {}", quoted(name));
        }
        // cloud-init sets things up once for each instance: with other flags it is another one.
        let hash = Sha256::new()
            .chain_update(&user_data)
            .chain_update(&meta_data)
            .chain_update(network_config.as_deref().unwrap_or_default())
            .finalize();
        let id: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(meta_data, "instance-id: {}", quoted(&format!("hartvm-{id}")));
        Ok(Documents { user_data, meta_data: meta_data.into_bytes(), network_config })
    }

    /// The `#cloud-config` for user, keys and password, if there are any of them.
    fn config(&self, keys: &[String]) -> Option<String> {
        let hash = self.password.as_deref().map(|password| crypt::sha512(password.as_bytes(), &self.salt()));
        if self.user.is_none() && keys.is_empty() && hash.is_none() {
            return None;
        }
        let mut text = String::from("#cloud-config\n");
        let mut line = |indent: usize, line: &str| {
            let _ = writeln!(text, "{:indent$}{line}", "");
        };
        if hash.is_some() {
            line(0, "ssh_pwauth: true");
        }
        // A user in a list is described there, the image's own user at the top.
        let indent = match &self.user {
            Some(name) => {
                if name == "root" {
                    line(0, "disable_root: false");
                }
                line(0, "users:");
                line(2, &format!("- name: {}", quoted(name)));
                if name != "root" {
                    line(4, "shell: /bin/bash");
                    line(4, "sudo: \"ALL=(ALL) NOPASSWD:ALL\"");
                }
                if let Some(hash) = &hash {
                    line(4, "lock_passwd: false");
                    // Unlike `passwd`, this is for a user of the image, too.
                    line(4, &format!("hashed_passwd: {}", quoted(hash)));
                }
                4
            }
            None => {
                if let Some(hash) = &hash {
                    line(0, &format!("password: {}", quoted(hash)));
                    line(0, "chpasswd:");
                    line(2, "expire: false");
                }
                0
            }
        };
        if !keys.is_empty() {
            line(indent, "ssh_authorized_keys:");
            for key in keys {
                line(indent + 2, &format!("- {}", quoted(key)));
            }
        }
        Some(text)
    }

    /// The same for the same user on the same host, so that the volume of every run is the same.
    fn salt(&self) -> String {
        let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
        let hash = Sha256::new()
            .chain_update(machine)
            .chain_update([0])
            .chain_update(self.user.as_deref().unwrap_or_default())
            .chain_update([0])
            .chain_update(self.hostname.as_deref().unwrap_or_default())
            .finalize();
        crypt::salt(&hash)
    }
}

struct Documents {
    user_data: Vec<u8>,
    meta_data: Vec<u8>,
    network_config: Option<Vec<u8>>,
}

/// Refuses what no guest could take: cloud-init would only say so in a log inside it.
fn check_names(args: &SeedArgs) -> Result<(), Usage> {
    if let Some(user) = &args.user {
        let bad = |c: char| c.is_control() || c.is_whitespace() || ":,/".contains(c);
        if user.is_empty() || user.len() > 32 || user.starts_with('-') || user.contains(bad) {
            return Err(Usage(format!(
                "--user: {user:?} cannot be the name of a user; want up to 32 characters without spaces, `:`, `,` and `/`, \
                 such as --user alice"
            )));
        }
    }
    if let Some(name) = &args.hostname {
        let good = |c: char| c.is_alphanumeric() || c == '-';
        let label = |label: &str| {
            (1..=63).contains(&label.len()) && !label.starts_with('-') && label.chars().all(good)
        };
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(Usage(format!(
                "--hostname: {name:?} cannot be the name of a machine; want letters, digits, `-` and `.`, such as --hostname box"
            )));
        }
    }
    match &args.password {
        Some(password) if password.is_empty() || password.contains(['\0', '\n']) => {
            Err(Usage("--password: want some text in one line, such as --password secret".into()))
        }
        _ => Ok(()),
    }
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>> {
    firmware::read_file(path, LIMIT).with_context(|| flag.to_string())
}

/// The public keys in a file: those of a `.pub` or `authorized_keys`, or of the `.pub` beside a private key.
fn public_keys(path: &Path) -> Result<Vec<String>> {
    const FLAG: &str = "--ssh-key";
    const WANT: &str = "want a public key, such as ~/.ssh/id_ed25519.pub; `ssh-keygen` makes one";
    let public = |path: &Path| -> Result<String> {
        let bytes = read(FLAG, path).context(WANT)?;
        String::from_utf8(bytes)
            .map_err(|_| Usage(format!("{FLAG}: {} is no text; {WANT}", path.display())).into())
    };
    let mut text = public(path)?;
    if text.starts_with("-----BEGIN") {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".pub");
        text = public(Path::new(&beside)).with_context(|| {
            format!("{FLAG}: {} is a private key, and there is no public one beside it", path.display())
        })?;
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<String> = lines.map(String::from).collect();
    // The type stands first, or behind options.
    let is_key = |line: &String| {
        line.split_whitespace().any(|word| {
            word.starts_with("ssh-") || word.starts_with("ecdsa-sha2-") || word.starts_with("sk-")
        })
    };
    if keys.is_empty() || !keys.iter().all(is_key) {
        return Err(
            Usage(format!("{FLAG}: {} has no public key of ssh in it; {WANT}", path.display())).into()
        );
    }
    Ok(keys)
}

/// Several documents as one, of which cloud-init finds out the types; later ones add to lists of earlier ones.
fn mime(parts: &[&[u8]]) -> Vec<u8> {
    // In base64 no line can look like the boundary.
    const BOUNDARY: &str = "==hartvm==";
    let mut text = format!("Content-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\nMIME-Version: 1.0\n\n");
    for part in parts {
        let _ = write!(
            text,
            "--{BOUNDARY}\nContent-Type: text/plain; charset=\"utf-8\"\nMIME-Version: 1.0\n\
             Content-Transfer-Encoding: base64\nX-Merge-Type: list(append)+dict(recurse_list)+str()\n\n"
        );
        for line in STANDARD.encode(part).as_bytes().chunks(76) {
            // Base64 is ASCII.
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
    }
    let _ = writeln!(text, "--{BOUNDARY}--");
    text.into_bytes()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
