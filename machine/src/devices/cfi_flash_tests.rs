//! A driver's view of the flash, and what is left in its image.

use super::*;
use crate::disk::{self, DiskOptions};

const BASE: u64 = board::region(Kind::Flash).base;

fn word(flash: &CfiFlash, offset: u64) -> u64 {
    flash.read(offset, 4).unwrap()
}

/// Writes a command to both chips.
fn command(flash: &CfiFlash, offset: u64, code: u64) {
    flash.write(offset, 4, code << 16 | code).unwrap();
}

fn program(flash: &CfiFlash, offset: u64, value: u64) {
    command(flash, offset, 0x40);
    flash.write(offset, 4, value).unwrap();
}

#[test]
fn a_query_describes_two_chips_of_16_mib() {
    let flash = CfiFlash::blank();
    command(&flash, 0x55 * 4, 0x98);
    let byte = |index: u64| {
        let value = word(&flash, index * 4);
        assert_eq!(value >> 16, value & 0xffff, "both chips give the same");
        value & 0xffff
    };
    let text: Vec<u8> = (0x10..0x13).chain(0x31..0x34).map(|index| byte(index) as u8).collect();
    assert_eq!(text, b"QRYPRI");
    assert_eq!((byte(0x13), byte(0x15), byte(0x3f)), (1, 0x31, 1));
    assert_eq!(1 << byte(0x27), 16 << 20);
    let sectors = (byte(0x2d) | byte(0x2e) << 8) + 1;
    let size = (byte(0x2f) | byte(0x30) << 8) * 256;
    assert_eq!((sectors, size), (128, 128 << 10));
    assert_eq!(1 << byte(0x2a), 2048);
    assert_eq!((byte(0), byte(0x40), byte(0x7f_ffff)), (0, 0, 0));
    // A byte of one chip, and two words at once.
    assert_eq!(flash.read(0x10 * 4 + 2, 1), Ok(b'Q'.into()));
    assert_eq!(flash.read(0x10 * 4, 8), Ok(0x0052_0052_0051_0051));
    command(&flash, 0, 0xff);
    assert_eq!(word(&flash, 0x40), 0xffff_ffff);
}

#[test]
fn identification() {
    let flash = CfiFlash::blank();
    command(&flash, 0, 0x90);
    assert_eq!([0, 4, 8].map(|offset| word(&flash, offset)), [0x89_0089, 0x18_0018, 0]);
}

#[test]
fn programming_clears_bits_and_erasing_sets_a_sector() {
    let flash = CfiFlash::blank();
    program(&flash, 0x4_0000, 0x1234_5678);
    assert_eq!(word(&flash, 0), 0x80_0080, "status, wherever it is read");
    program(&flash, 0x4_0000, 0xffff_00ff);
    program(&flash, 0x8_0000, 0);
    command(&flash, 0, 0xff);
    assert_eq!(word(&flash, 0x4_0000), 0x1234_0078);
    command(&flash, 0x7_fffc, 0x20);
    command(&flash, 0x7_fffc, 0xd0);
    assert_eq!(word(&flash, 0x7_fffc), 0x80_0080);
    command(&flash, 0, 0xff);
    assert_eq!((word(&flash, 0x4_0000), word(&flash, 0x8_0000)), (0xffff_ffff, 0));
}

#[test]
fn a_buffer_is_programmed_when_it_is_confirmed() {
    let flash = CfiFlash::blank();
    command(&flash, 0x1000, 0xe8);
    assert_eq!(word(&flash, 0x1000), 0x80_0080);
    command(&flash, 0x1000, 31);
    for index in 0..32 {
        flash.write(0x1000 + index * 4, 4, index).unwrap();
    }
    command(&flash, 0x1000, 0xd0);
    assert_eq!(word(&flash, 0x1000), 0x80_0080);
    command(&flash, 0, 0xff);
    assert_eq!((word(&flash, 0x1000 + 31 * 4), word(&flash, 0x1080)), (31, 0xffff_ffff));

    // Not confirmed: nothing has happened, and the error stays until it is cleared.
    command(&flash, 0x2000, 0xe8);
    command(&flash, 0x2000, 0);
    flash.write(0x2000, 4, 0).unwrap();
    command(&flash, 0x2000, 0x00);
    assert_eq!(word(&flash, 0), 0xb0_00b0);
    command(&flash, 0, 0xff);
    assert_eq!(word(&flash, 0x2000), 0xffff_ffff);
    command(&flash, 0, 0x50);
    command(&flash, 0, 0x70);
    assert_eq!(word(&flash, 0), 0x80_0080);
}

#[test]
fn buffers_have_a_size_and_a_place() {
    let flash = CfiFlash::blank();
    command(&flash, 0, 0xe8);
    command(&flash, 0, 1024);
    assert_eq!(word(&flash, 0), 0xb0_00b0, "1025 words are more than the buffer holds");
    command(&flash, 0, 0x50);
    // The second word is behind the end of the buffer where the first is.
    command(&flash, 0xffc, 0xe8);
    command(&flash, 0xffc, 1);
    flash.write(0xffc, 4, 0).unwrap();
    flash.write(0x1000, 4, 0).unwrap();
    command(&flash, 0xffc, 0xd0);
    assert_eq!(word(&flash, 0), 0x90_0090);
    command(&flash, 0, 0xff);
    assert_eq!((word(&flash, 0xffc), word(&flash, 0x1000)), (0xffff_ffff, 0xffff_ffff));
}

#[test]
fn locks_succeed_and_unknown_commands_show_the_array() {
    let flash = CfiFlash::blank();
    for confirm in [0x01, 0xd0] {
        command(&flash, 0, 0x60);
        command(&flash, 0, confirm);
        assert_eq!(word(&flash, 0), 0x80_0080);
    }
    command(&flash, 0, 0x77);
    assert_eq!(word(&flash, 0), 0xffff_ffff);
    command(&flash, 0, 0x20);
    command(&flash, 0, 0xff);
    assert_eq!(word(&flash, 0), 0xffff_ffff, "an erase that was called off");
}

#[test]
fn words_may_be_written_in_parts_or_two_at_once() {
    let flash = CfiFlash::blank();
    flash.write(1, 1, 0x40).unwrap();
    flash.write(1, 1, 0x12).unwrap();
    // A command to both words, which is a command and its data.
    flash.write(8, 8, 0x1111_1111_0040_0040).unwrap();
    command(&flash, 0, 0xff);
    assert_eq!(flash.read(0, 8), Ok(0xffff_ffff_ffff_12ff));
    assert_eq!(flash.read(8, 8), Ok(0x1111_1111_ffff_ffff));
}

#[test]
fn every_byte_of_rubbish_is_survived() {
    let flash = CfiFlash::blank();
    let mut seed = 1_u64;
    for _ in 0..200_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let width = 1 << (seed >> 60 & 3);
        let offset = (seed >> 20) % SIZE / width * width;
        let value = (seed >> 33) & (u64::MAX >> (64 - 8 * width));
        match seed >> 62 {
            0 => drop(flash.read(offset, width as u8).unwrap()),
            1 => flash.write(offset, width as u8, value).unwrap(),
            _ => command(
                &flash,
                offset & !3,
                [0x40, 0xe8, 0x20, 0xd0, 0x60, 0x00, 0x03, 0xff][seed as usize >> 40 & 7],
            ),
        }
    }
    assert!(flash.0.lock().buffer.len() <= BUFFER / BANK_WIDTH as usize);
}

fn image(name: &str, contents: &[u8]) -> DiskOptions {
    let path = std::env::temp_dir().join(format!("hartvm-flash-{name}-{}", std::process::id()));
    std::fs::write(&path, contents).unwrap();
    DiskOptions::new(path)
}

fn open(options: &DiskOptions) -> CfiFlash {
    let disk = disk::open(options).unwrap();
    CfiFlash::stored(contents(&*disk, &options.path).unwrap(), Some(disk))
}

#[test]
fn what_is_programmed_is_in_the_image_at_once() {
    let options = image("kept", &vec![0xff; 2 * SECTOR]);
    let flash = open(&options);
    program(&flash, 0x200, 0x0403_0201);
    assert_eq!(std::fs::read(&options.path).unwrap()[0x200..0x205], [1, 2, 3, 4, 0xff]);
    drop(flash);
    let flash = open(&options);
    assert_eq!(word(&flash, 0x200), 0x0403_0201);
    command(&flash, 0, 0x20);
    command(&flash, 0, 0xd0);
    assert_eq!(std::fs::read(&options.path).unwrap()[0x200..0x204], [0xff; 4]);
    // The image ends here: the cells behind it read as erased and cannot be changed.
    program(&flash, 2 * SECTOR as u64, 0);
    assert_eq!(word(&flash, 0), 0x90_0090);
    command(&flash, 0, 0xff);
    assert_eq!(word(&flash, 2 * SECTOR as u64), 0xffff_ffff);
    std::fs::remove_file(options.path).unwrap();
}

#[test]
fn images_that_do_not_fit_are_refused() {
    let options = image("large", &[1]);
    std::fs::File::options().write(true).open(&options.path).unwrap().set_len(SIZE + 512).unwrap();
    let disk = disk::open(&options).unwrap();
    let error = contents(&*disk, &options.path).unwrap_err().to_string();
    assert!(error.contains("33554432"), "{error}");
    std::fs::remove_file(options.path).unwrap();
}

#[test]
fn the_bank_with_code_is_protected_and_hidden_while_it_is_talked_to() {
    let mut memory = GuestMemory::new(board::RAM_BASE, 1 << 20).unwrap();
    let mut code = vec![0; SIZE as usize];
    code[..4].copy_from_slice(&[1, 2, 3, 4]);
    memory.add_rom(BASE, &code).unwrap();
    let harts = [Arc::new(HartShared::new())];
    let flash = CfiFlash::rom(memory, BASE, &harts);
    harts[0].take_poll();
    command(&flash, 0x55 * 4, 0x98);
    assert_ne!(harts[0].poll_word().load(std::sync::atomic::Ordering::SeqCst), 0, "harts are told");
    assert_eq!(word(&flash, 0x40), u64::from(both(b'Q'.into())));
    command(&flash, 0, 0xff);
    program(&flash, 0, 0);
    assert_eq!(word(&flash, 0), 0x92_0092);
    command(&flash, 0, 0x50);
    command(&flash, 0, 0x20);
    command(&flash, 0, 0xd0);
    assert_eq!(word(&flash, 0), 0xa2_00a2);
    flash.reset();
    assert_eq!(word(&flash, 0), 0x0403_0201);
}
