//! How many instructions a second are decoded, and lowered to the intermediate representation: those of the guest program in
//! `programs/`, in the order they lie in memory.

mod program;

use criterion::{Criterion, Throughput};
use frontend::{Block, Decoder, Isa, decode};
use goblin::elf::Elf;

/// The halfwords of the program's code.
fn code() -> Vec<u16> {
    let bytes = std::fs::read(program::build()).expect("the guest has just been built");
    let elf = Elf::parse(&bytes).expect("an ELF file");
    let text = elf.section_headers.iter().find(|section| section.is_executable()).expect("a section of code");
    let text = &bytes[text.file_range().expect("the code is in the file")];
    text.chunks_exact(2).map(|half| u16::from_le_bytes([half[0], half[1]])).collect()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let decoder = Decoder::new(&Isa::ALL);
    let code = code();
    let (mut words, mut at) = (Vec::new(), 0);
    while at < code.len() {
        let length = usize::from(decode::length(code[at]) / 2);
        let high = if length == 2 { code.get(at + 1).copied().unwrap_or(0) } else { 0 };
        words.push(u32::from(code[at]) | u32::from(high) << 16);
        at += length;
    }
    let mut group = criterion.benchmark_group("frontend");
    group.throughput(Throughput::Elements(words.len() as u64));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| words.iter().filter(|&&word| decoder.decode(word).is_some()).count());
    });
    group.bench_function("lower", |bencher| {
        bencher.iter(|| {
            // Blocks from the start to the end of each page, as if every instruction behind a block started one.
            let mut operations = 0;
            for page in code.chunks(2048) {
                let mut at = 0;
                while usize::from(at) < 2 * page.len() {
                    let fetch = |at: u16| page.get(usize::from(at) / 2).copied().ok_or(());
                    let Ok(block) = Block::cut(&decoder, at, frontend::block::MAX_INSNS, fetch) else {
                        break;
                    };
                    operations += block.ops.len();
                    at = block.end;
                }
            }
            operations
        });
    });
    group.finish();
    criterion.final_summary();
}
