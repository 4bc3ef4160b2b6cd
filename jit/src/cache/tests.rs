use super::*;

const RAM: u64 = 0x8000_0000;
/// An instruction across the edge of the first page.
const START: u64 = RAM + 0xffe;

fn cache() -> (GuestMemory, Arc<CodeCache>) {
    let memory = GuestMemory::new(RAM, 1 << 20).unwrap();
    let cache = CodeCache::new(&memory, &Inspect::default(), true).expect("this host has a backend");
    (memory, cache)
}

/// The instruction with its second half in the given page.
fn across(page: u64) -> [Span; 2] {
    [Span { pa: START, length: 2 }, Span { pa: RAM + page * PAGE_SIZE, length: 2 }]
}

fn publish(cache: &CodeCache, code: [Span; 2]) -> Option<u64> {
    // Nobody runs it.
    const NOPS: [u8; 16] = [0; 16];
    cache.publish(cache.begin(code, View::Plain)?, 1, NOPS.len(), NOPS.len(), None, |_| (&NOPS, &[]))
}

#[test]
fn a_store_to_either_page_kills_a_block_across_them() {
    for written in [START, RAM + PAGE_SIZE] {
        let (memory, cache) = cache();
        assert_eq!(publish(&cache, across(1)), cache.find(across(1), View::Plain, None));
        assert!(cache.find(across(1), View::Plain, None).is_some());
        memory.write(written, &[0xff]).unwrap();
        assert_eq!(cache.find(across(1), View::Plain, None), None, "{written:#x}");
    }
}

#[test]
fn code_in_a_rom_needs_no_watch() {
    const ROM: u64 = 0x2000_0000;
    let mut memory = GuestMemory::new(RAM, 1 << 20).unwrap();
    memory.add_rom(ROM, &[0x13; 4096]).unwrap();
    let cache = CodeCache::new(&memory, &Inspect::default(), true).expect("this host has a backend");
    let entry = publish_in(&cache, ROM + 0x10, View::Plain);
    let found = || cache.find([Span { pa: ROM + 0x10, length: 0 }, Span::default()], View::Plain, None);
    assert!(entry.is_some() && found() == entry);
    // A flash that is told something is read as something else, but executed as it was.
    memory.hide_rom(ROM);
    assert_eq!(found(), entry);
    assert_eq!(publish_in(&cache, ROM + 0x1000, View::Plain), None, "nothing is there");
}

#[test]
fn a_block_whose_second_page_is_another_now_is_watched_too() {
    let (memory, cache) = cache();
    publish(&cache, across(1)).unwrap();
    assert_eq!(cache.find(across(2), View::Plain, None), None);
    // The first attempt may find that the old block's end has ended the watch of the first page.
    let entry = publish(&cache, across(2)).or_else(|| publish(&cache, across(2)));
    assert!(entry.is_some() && cache.find(across(2), View::Plain, None) == entry);
    assert_eq!(cache.find(across(1), View::Plain, None), None);
    memory.write(START, &[0xff]).unwrap();
    assert_eq!(cache.find(across(2), View::Plain, None), None);
}

#[test]
fn a_region_that_stores_have_emptied_is_retired_like_others() {
    let (memory, cache) = cache();
    static CODE: [u8; 60_000] = [0x90; 60_000];
    let region = SMALL_ARENA_SIZE as u32 / REGIONS;
    assert_eq!(region / CODE.len() as u32, 2);
    for block in 0..2 * (REGIONS + 3) {
        let code = [Span { pa: RAM + u64::from(block) * 64, length: 16 }, Span::default()];
        let publish = || {
            cache.publish(cache.begin(code, View::Plain)?, 4, CODE.len(), CODE.len(), None, |_| (&CODE, &[]))
        };
        assert!(publish().is_some());
        memory.write(code[0].pa, &[block as u8 + 1]).unwrap();
        assert_eq!(cache.find(code, View::Plain, None), None);
    }
    // While the last region and the first three were filled for the second time, the next was retired each time.
    assert_eq!(cache.stats().retired, 4);
}

#[test]
fn a_loop_that_wanders_is_translated_again_until_it_is_overwritten() {
    let (memory, cache) = cache();
    let code = [Span { pa: RAM + 0x10, length: 16 }, Span::default()];
    let wanders = |cache: &CodeCache| cache.begin(code, View::Plain).expect("a ticket").wanders;
    publish_in(&cache, code[0].pa, View::Plain).unwrap();
    assert!(!wanders(&cache));
    cache.note_wanderer(code[0].pa);
    assert_eq!(cache.find(code, View::Plain, None), None);
    assert!(wanders(&cache));
    let entry = publish_in(&cache, code[0].pa, View::Plain);
    cache.note_wanderer(code[0].pa);
    assert!(entry.is_some() && cache.find(code, View::Plain, None) == entry);
    memory.write(code[0].pa + 4, &[0xff]).unwrap();
    assert!(!wanders(&cache));
    assert_eq!(cache.stats().wanderers, 1);
}

/// Publishes a block of four instructions, without links.
fn publish_in(cache: &CodeCache, pa: u64, view: View) -> Option<u64> {
    const NOPS: [u8; 16] = [0x90; 16];
    let code = [Span { pa, length: 16 }, Span::default()];
    cache.publish(cache.begin(code, view)?, 4, NOPS.len(), NOPS.len(), None, |_| (&NOPS, &[]))
}

#[test]
fn the_views_of_a_page_are_apart_and_new_cuts_kill_only_what_they_are_in() {
    let (memory, cache) = cache();
    let code = |pa| [Span { pa, length: 0 }, Span::default()];
    let found = |pa, view| cache.find(code(pa), view, None);
    for pa in [RAM, RAM + 0x10, RAM + 0x20] {
        let (plain, cut) = (publish_in(&cache, pa, View::Plain), publish_in(&cache, pa, View::Cut));
        assert!(plain.is_some() && cut.is_some() && plain != cut);
        assert_eq!((found(pa, View::Plain), found(pa, View::Cut)), (plain, cut));
    }
    let mut cuts: Cuts = [0; 32];
    cuts[0] = 1 << (0x14 / 2);
    cache.set_cuts(&cuts);
    assert!([RAM, RAM + 0x20].iter().all(|&pa| found(pa, View::Cut).is_some()));
    assert_eq!(found(RAM + 0x10, View::Cut), None);
    assert!(found(RAM + 0x10, View::Plain).is_some());
    // A cut where a block starts kills it, too: links lead there. Cuts that were there before kill nothing.
    cuts[0] |= 1;
    assert!(publish_in(&cache, RAM + 0x10, View::Cut).is_some());
    cache.set_cuts(&cuts);
    assert_eq!(found(RAM, View::Cut), None);
    assert!(found(RAM + 0x10, View::Cut).is_some());
    // A store kills the blocks of both views.
    memory.write(RAM + 0x22, &[0xff]).unwrap();
    assert_eq!((found(RAM + 0x20, View::Plain), found(RAM + 0x20, View::Cut)), (None, None));
}
