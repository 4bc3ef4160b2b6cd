# The disks that tests/boot/run boots. Sourced by it.

# put FILE MIB DISK: writes a file into a disk.
put() {
    dd if="$work/$1" of="$work/$3" bs=1M seek="$2" conv=notrunc,sparse status=none
}

# make_disks: disk.img, the same packed as disk.img.xz, boot.img and disc.iso in $work. They have $kernel and initrd.gz.
make_disks() {
    local uuid=11112222-3333-4444-5555-666677778888
    need_packages xz-utils gdisk dosfstools mtools e2fsprogs xorriso

    # Laid out as Ubuntu's are: GRUB's small configuration on the EFI system partition leads to the one of the root.
    mkdir -p "$work/tree/boot/grub"
    cp "$kernel" "$work/tree/boot/vmlinuz-1.0"
    cp "$work/initrd.gz" "$work/tree/boot/initrd.img-1.0"
    cp tests/boot/grub.cfg "$work/tree/boot/grub/grub.cfg"
    printf 'search.fs_uuid %s root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n' $uuid > "$work/esp.cfg"
    mkfs.ext4 -q -U $uuid -L cloudimg-rootfs -d "$work/tree" "$work/root.ext4" 192M
    mkfs.vfat -C "$work/esp.fat" 8192 -n UEFI > /dev/null
    mmd -i "$work/esp.fat" ::/EFI ::/EFI/ubuntu
    mcopy -i "$work/esp.fat" "$work/esp.cfg" ::/EFI/ubuntu/grub.cfg
    truncate -s 202M "$work/disk.img"
    sgdisk -n 15:2048:+8M -t 15:EF00 -n 1:18432:+192M "$work/disk.img" > /dev/null
    put esp.fat 1 disk.img
    put root.ext4 9 disk.img
    xz -1 -T0 -k "$work/disk.img"

    # The same with /boot on a partition of its own, as Ubuntu's cloud images have it since 24.04.
    mkdir -p "$work/root2/boot" "$work/root2/etc"
    sed -i 's|=(\$root)/boot/grub|=($root)/grub|' "$work/esp.cfg"
    mcopy -o -i "$work/esp.fat" "$work/esp.cfg" ::/EFI/ubuntu/grub.cfg
    sed -i 's|/boot/|/|' "$work/tree/boot/grub/grub.cfg"
    mkfs.ext4 -q -U $uuid -L BOOT -d "$work/tree/boot" "$work/boot.ext4" 192M
    mkfs.ext4 -q -L cloudimg-rootfs -d "$work/root2" "$work/root2.ext4" 8M
    truncate -s 212M "$work/boot.img"
    sgdisk -n 15:2048:+8M -t 15:EF00 -n 13:18432:+192M -n 1:411648:+8M "$work/boot.img" > /dev/null
    put esp.fat 1 boot.img
    put boot.ext4 9 boot.img
    put root2.ext4 201 boot.img

    # A disc for installation, with the installer's own configuration.
    mkdir -p "$work/disc/boot/grub" "$work/disc/debian-installer/riscv64"
    cp "$installer/grub/grub.cfg" "$work/disc/boot/grub/"
    ln "$installer/linux" "$installer/initrd.gz" "$work/disc/debian-installer/riscv64/" 2>/dev/null ||
        cp "$installer/linux" "$installer/initrd.gz" "$work/disc/debian-installer/riscv64/"
    xorriso -as mkisofs -quiet -r -V 'Debian 13' -o "$work/disc.iso" "$work/disc" 2> /dev/null
}
