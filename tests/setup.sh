# What try.sh and check.sh share: getting what a fresh Debian or Ubuntu machine lacks. Sourced, not run.

# Newest Rust features in use; see rust-version in Cargo.toml.
need_rust_version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else die "need root for: $* (run it as root, or install sudo)"
    fi
}

# again COMMAND...: up to five times, until it succeeds. For what comes from afar.
again() {
    local try
    for try in 1 2 3 4; do
        "$@" && return
        say "failed, so once more in a while: $*"
        sleep $((20 * try))
    done
    "$@"
}

# need_packages PACKAGE...: installs the Debian packages that are missing.
need_packages() {
    local missing=() package
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) = *'ok installed' ]] || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get >/dev/null || die "this machine has no apt-get; install these by hand: ${missing[*]}"
    say "installing ${missing[*]}"
    # Another program that installs something is waited for.
    as_root env DEBIAN_FRONTEND=noninteractive sh -c \
        'apt="apt-get -q -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3"
        $apt install --no-remove -y "$@" >/dev/null 2>&1 && exit
        for pause in 0 20 40 60 80; do
            sleep $pause
            $apt update >/dev/null && $apt install --no-remove -y "$@" >/dev/null && exit
        done
        exit 1' \
        sh "${missing[@]}" || die "could not install ${missing[*]}"
}

have_rust() {
    command -v cargo >/dev/null || return 1
    local version
    version=$(cargo --version | awk '{print $2}')
    [ "$(printf '%s\n%s\n' "$need_rust_version" "$version" | sort -V | head -n 1)" = "$need_rust_version" ]
}

# need_rust: a Rust toolchain that is new enough, by the distribution's rustup if need be.
need_rust() {
    PATH=$HOME/.cargo/bin:$PATH
    need_packages gcc libc6-dev
    have_rust && return
    if ! command -v rustup >/dev/null && apt-cache show rustup >/dev/null 2>&1; then
        need_packages rustup
    fi
    command -v rustup >/dev/null ||
        die "need Rust $need_rust_version or newer; this distribution has no rustup package: install rustup, then try again"
    say "installing the Rust toolchain"
    again rustup default stable
    have_rust || die "need Rust $need_rust_version or newer, found $(cargo --version)"
}

# The mirror that this machine's own apt uses for Debian; nothing on other distributions, where mmdebstrap knows one.
debian_mirror() {
    local id
    id=$(. /etc/os-release; echo "$ID")
    [ "$id" = debian ] || return 0
    (cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null || true) | awk '
        /^URIs:/ && !found { found = $2 }
        /^deb / && !found { for (i = 2; i <= NF; i++) if ($i ~ /:\/\// && !found) found = $i }
        END { print found }'
}

# need_guest DIR SUITE PACKAGE...: unpacks RISC-V packages of a Debian release into DIR/root, unmodified.
need_guest() {
    local dir=$1 suite=$2
    shift 2
    need_unpacked "$dir" "$suite" riscv64 "$@"
}

# need_unpacked DIR SUITE ARCHITECTURE PACKAGE...: the same for packages of any architecture.
need_unpacked() {
    local dir=$1 suite=$2 architecture=$3 mirror include
    shift 3
    [ -e "$dir/complete" ] && return
    need_packages mmdebstrap debian-archive-keyring
    # Without root, mmdebstrap works in a user namespace of its own.
    [ "$(id -u)" = 0 ] || need_packages uidmap
    say "getting $* of Debian $suite for $architecture"
    mirror=$(debian_mirror)
    include=$(IFS=,; echo "$*")
    rm -rf "$dir"
    mkdir -p "$dir/root"
    # As a tar file, so that what is unpacked belongs to whoever runs this.
    again mmdebstrap --quiet --variant=extract --architectures="$architecture" --include="$include" \
        --keyring=/usr/share/keyrings/debian-archive-keyring.gpg --aptopt='Acquire::Retries "3"' \
        "$suite" "$dir/root.tar" ${mirror:+"deb $mirror $suite main"} ||
        die "could not get $* from Debian $suite"
    tar -C "$dir/root" -xf "$dir/root.tar" --no-same-owner --exclude='./dev/*'
    rm "$dir/root.tar"
    touch "$dir/complete"
}

# mirror_of DIR: where the packages that need_guest unpacked into DIR came from.
mirror_of() {
    sed -n 's/^deb \([^ ]*\) .*/\1/p' "$1/root/etc/apt/sources.list" | head -n 1
}

# Debian's installer for riscv64: $installer/linux and $installer/initrd.gz, to be started with $installer_options.
need_installer() {
    # It starts on every console at once, here also on tty1, and one of the two can find /var/lib/dpkg/status gone while the other
    # replaces it. The word "auto" has it start on one only (its /sbin/reopen-console); it means nothing more where it is false.
    installer_options='console=ttyS0 DEBIAN_FRONTEND=text auto=false'
    need_guest guests/installer trixie debian-installer-13-netboot-riscv64
    installer=guests/installer/root/usr/lib/debian-installer/images/13/riscv64/text/debian-installer/riscv64
    [ -s "$installer/linux" ] && [ -s "$installer/initrd.gz" ] || die "the installer package has no kernel in $installer"
}

# find_qemu_aarch64: sets qemu_aarch64 to a program that runs programs for aarch64 on this host, of QEMU 8.1 or later: what is older
# does not notice code that is written through another mapping. Debian 12 has an older one; then it is Debian 13's, unpacked. Sets it
# to nothing if there is none.
find_qemu_aarch64() {
    local candidate version
    # Whatever goes wrong, there is none.
    (need_packages qemu-user) >&2 || true
    for candidate in qemu-aarch64 guests/qemu/root/usr/bin/qemu-aarch64; do
        if [ "$candidate" != qemu-aarch64 ] && ! [ -x "$candidate" ]; then
            (need_unpacked guests/qemu trixie "$(dpkg --print-architecture)" qemu-user) >&2 || continue
        fi
        qemu_aarch64=$(command -v "$candidate") || continue
        case $qemu_aarch64 in /*) ;; *) qemu_aarch64=$PWD/$qemu_aarch64 ;; esac
        version=$("$qemu_aarch64" --version 2>/dev/null | sed -n '1s/.*version \([0-9.]*\).*/\1/p')
        [ -n "$version" ] && [ "$(printf '8.1\n%s\n' "$version" | sort -V | head -n 1)" = 8.1 ] && return
    done
    qemu_aarch64=
}
