//! The keyword filter: finds the few places of many texts where a word may stand, many bytes at a time, and confirms
//! them one by one.
//!
//! Every word has a window: three or four of its letters that stand together, and one of eight buckets. For each of a
//! window's four places a table says which buckets have a word with that letter there. What the four tables have in
//! common for four neighbouring bytes is the buckets that may begin there: a vector of bytes takes a few shuffles, as
//! in Hyperscan's Teddy. A letter is told by its low five bits and the one that all letters have, so case folds for
//! nothing, and a little that is no letter looks like one; what follows is exact. With AVX-512 VBMI a byte is looked up
//! as it is. The window's letters are looked up in a table in which the first three of no two words collide (`more` is
//! for words that have the same), and then the whole word is compared within its text.
//!
//! The sweep takes no notice of where texts end. A text that holds one of the two letters outside ASCII whose lower
//! case has an ASCII letter (E2 84 AA, C4 B0) is read by the automaton as well.
const std = @import("std");
const isa = @import("isa.zig");
const automata = @import("encode.zig");
const Automaton = automata.Automaton;
const Mask = automata.Mask;

/// Whether this instruction set has the shuffle.
pub const available = isa.current != .baseline;

const window = 4;
/// Bytes of it that are letters in any case.
const key_len = 3;
/// Bytes of a word that are compared at once.
const head = 16;
/// The most bytes of a word before its window.
const most_before = 64;

pub const Entry = extern struct {
    /// The first bytes of the word, and of those compared (as far as there are) the bit that folds a letter's case.
    word: [head]u8,
    fold: [head]u8,
    bits: Mask,
    /// Where the word's other bytes begin in `rest`; as many of `fold` follow them.
    rest: u32,
    len: u8,
    /// Bytes of the word before its window.
    before: u8,
    /// Entries after this one whose windows begin with the same three letters.
    more: u8,
    reserved: u8,
    /// The bytes of `word` that are there, a bit each.
    compared: u16,
    unused: [6]u8,

    comptime {
        std.debug.assert(@sizeOf(Entry) == 64 and @alignOf(Entry) == 8);
    }
};

/// The windows that begin with the same three letters; all zero where none does.
pub const Slot = extern struct {
    /// Four letters, the first one lowest.
    letters: u32,
    /// The number of the first entry, and 0xff000000 if all of them have the fourth letter.
    entry: u32,

    /// Whether these four bytes may be a window, and of which entries.
    inline fn has(slot: Slot, letters: u32) bool {
        return (letters ^ slot.letters) & (slot.entry | 0xffffff) == 0;
    }
};

pub const Filter = extern struct {
    /// tables[place][letter / 16][letter % 16]: the buckets.
    tables: [window][2][16]u8,
    /// Where a window's first three letters are looked up, at (letters * multiplier) >> shift.
    slots: [*]const Slot,
    entries: [*]const Entry,
    rest: [*]const u8,
    /// exact[place][byte]: the buckets, of an ASCII byte.
    exact: *const [window][128]u8,
    multiplier: u32,
    shift: u32,
    /// Whether the CPU has AVX-512 VBMI and VBMI2, which the copy for AVX-512 does not require.
    has_byte_permutes: u32,
    unused: u32 = 0,

    comptime {
        std.debug.assert(@sizeOf(Filter) == 128 + 4 * @sizeOf(usize) + 16);
    }
};

const width = switch (isa.current) {
    .avx512 => 64,
    .avx2 => 32,
    .neon, .baseline => 16,
};
const Bytes = @Vector(width, u8);
const Bits = std.meta.Int(.unsigned, width);

/// Bytes swept before their candidates are confirmed.
const block = 2048;

/// out[t] |= mask of text t, as `automata.encode` has it.
pub fn encode(
    filter: *const Filter,
    automaton: *const Automaton,
    text: [*]const u8,
    offsets: [*]const u64,
    count: usize,
    out: [*]Mask,
) void {
    if (count == 0) return;
    const begin: usize = @intCast(offsets[0]);
    const end: usize = @intCast(offsets[count]);
    var sweep: Sweep = .{
        .filter = filter,
        .automaton = automaton,
        .offsets = offsets,
        .out = out,
        .whole = text,
        .begin = begin,
        .text = text,
        .origin = 0,
    };
    for (&sweep.tables, filter.tables) |*wide, table| {
        for (wide, table) |*half, narrow| half.* = @as([width]u8, narrow ** (width / 16));
    }
    // Up to here every load of the sweep and of the confirmation lies within the texts.
    const slack = width + window + most_before + head;
    var at = begin;
    const way: Way = if (isa.current == .avx512 and filter.has_byte_permutes != 0) .exact else .letters;
    switch (way) {
        inline else => |known| if (known == .letters or isa.current == .avx512) {
            while (end - at > block + slack) : (at += block) sweep.run(known, at, block);
        },
    }

    // The rest lies in a copy with room behind it, and before it as much as a word may reach back.
    var copy: [most_before + block + 2 * slack + width]u8 = @splat(0);
    const from = at - @min(at - begin, most_before);
    @memcpy(copy[0 .. end - from], text[from..end]);
    sweep.text = &copy;
    sweep.origin = from;
    sweep.begin = from;
    while (at < end) : (at += block) sweep.run(.letters, at, @min(block, end - at));
}

/// How a vector of bytes is looked up: by all of a byte, or by its low five bits and the one that every letter has.
const Way = enum { letters, exact };

const Sweep = struct {
    filter: *const Filter,
    automaton: *const Automaton,
    offsets: [*]const u64,
    out: [*]Mask,
    /// All texts, as the automaton reads them.
    whole: [*]const u8,
    /// What is read here: the same bytes, of which the first is the one at `origin`.
    text: [*]const u8,
    origin: usize,
    /// Where they begin.
    begin: usize,
    tables: [window][2]Bytes = undefined,
    /// The text that was confirmed in last, and the one with a letter outside ASCII that was last met.
    current: usize = 0,
    special: usize = 0,
    done_special: usize = std.math.maxInt(usize),

    fn run(sweep: *Sweep, comptime way: Way, at: usize, len: usize) void {
        var places: [block + width]u16 = undefined;
        var count: usize = 0;
        var offset: usize = 0;
        // Held in registers.
        var exact: [window][2]Bytes = undefined;
        if (way == .exact) {
            for (&exact, sweep.filter.exact) |*table, bytes| table.* = .{ bytes[0..width].*, bytes[width..].* };
        }
        while (offset < len) : (offset += width) {
            const from = sweep.text + (at - sweep.origin) + offset;
            const first: Bytes = from[0..width].*;
            // The next block's. Beyond the end is harmless: a prefetch cannot fault.
            @prefetch(from + block, .{});
            var buckets: Bytes = @splat(0xff);
            var letters: Bytes = @splat(0x40);
            inline for (0..window) |place| {
                const bytes: Bytes = from[place..][0..width].*;
                switch (way) {
                    .exact => buckets &= permute(exact[place], bytes),
                    .letters => {
                        buckets &= lookup(sweep.tables[place], bytes);
                        if (place < key_len) letters &= bytes;
                    },
                }
            }
            if (way == .letters) buckets = @select(u8, letters == @as(Bytes, @splat(0)), letters, buckets);
            const some: Bits = @bitCast(buckets != @as(Bytes, @splat(0)));
            count = switch (way) {
                .exact => compress(&places, count, offset, some),
                .letters => note(&places, count, offset, some),
            };
            const high: Bits = @bitCast(first >= @as(Bytes, @splat(0x80)));
            if (high != 0) sweep.meetLetters(at + offset);
        }
        // Past the end there are zeros, or the next block.
        while (count > 0 and places[count - 1] >= len) count -= 1;
        var found: [block + width]Found = undefined;
        const keyed = sweep.lookUp(at, places[0..count], &found);
        sweep.confirm(at, found[0..keyed]);
    }

    /// A place after the block's begin at which the letters of a window stand.
    const Found = packed struct(u32) {
        place: u16,
        entry: u16,

        /// In one word, which is stored at once.
        inline fn of(place: u16, slot: Slot) Found {
            return @bitCast(@as(u32, place) | slot.entry << 16);
        }
    };

    /// Which of these places have the letters of a window; tells how many.
    inline fn lookUp(sweep: *const Sweep, at: usize, places: []const u16, found: *[block + width]Found) usize {
        const text = sweep.text + (at - sweep.origin);
        const slots = sweep.filter.slots;
        const multiplier = sweep.filter.multiplier;
        const shift: u5 = @intCast(sweep.filter.shift);
        var count: usize = 0;
        for (places) |place| {
            const letters = std.mem.readInt(u32, text[place..][0..4], .little) | 0x20202020;
            const slot = slots[((letters & 0xffffff) *% multiplier) >> shift];
            // Written in any case, and counted where they are the same.
            found[count] = .of(place, slot);
            count += @intFromBool(slot.has(letters));
        }
        return count;
    }

    /// Finds the words that do stand at these places.
    inline fn confirm(sweep: *Sweep, at: usize, places: []const Found) void {
        const entries = sweep.filter.entries;
        const text = sweep.text;
        const origin = sweep.origin;
        const offsets = sweep.offsets;
        const first = sweep.begin;
        var current = sweep.current;
        var begin: usize = @intCast(offsets[current]);
        var end: usize = @intCast(offsets[current + 1]);
        var found: Mask = .{ .low = 0, .high = 0 };
        for (places) |place| {
            const here = at + place.place;
            if (here >= end) {
                sweep.add(current, found);
                found = .{ .low = 0, .high = 0 };
                while (here >= offsets[current + 1]) current += 1;
                begin = @intCast(offsets[current]);
                end = @intCast(offsets[current + 1]);
            }
            var entry = &entries[place.entry];
            while (true) {
                const start = here -% entry.before;
                // A word that would begin before the texts is compared with something that is there, and not found.
                const readable = if (here < first + entry.before) first else start;
                const bytes: @Vector(head, u8) = text[readable - origin ..][0..head].*;
                const folded = bytes | @as(@Vector(head, u8), entry.fold);
                const different: u16 = @bitCast(folded != @as(@Vector(head, u8), entry.word));
                var is_word = @intFromBool(different & entry.compared == 0) &
                    @intFromBool(here >= begin + entry.before) & @intFromBool(start +% entry.len <= end);
                if (entry.len > head and is_word != 0) is_word = @intFromBool(sweep.endsAs(entry, start));
                const keep = @as(u64, 0) -% is_word;
                found.low |= entry.bits.low & keep;
                found.high |= entry.bits.high & keep;
                if (entry.more == 0) break;
                entry = @ptrCast(@as([*]const Entry, @ptrCast(entry)) + 1);
            }
        }
        sweep.add(current, found);
        sweep.current = current;
    }

    inline fn add(sweep: *Sweep, text: usize, mask: Mask) void {
        sweep.out[text].low |= mask.low;
        sweep.out[text].high |= mask.high;
    }

    /// Whether the bytes of a long word after its head are there.
    noinline fn endsAs(sweep: *const Sweep, entry: *const Entry, start: usize) bool {
        const len = entry.len - head;
        const word = sweep.filter.rest[entry.rest..];
        for (sweep.text[start - sweep.origin + head ..][0..len], word[0..len], word[len..][0..len]) |byte, want, fold| {
            if (byte | fold != want) return false;
        }
        return true;
    }

    /// Has the automaton read the texts that have one of the two letters outside ASCII that fold to ASCII in the
    /// vector at `at`.
    noinline fn meetLetters(sweep: *Sweep, at: usize) void {
        const first: Bytes = sweep.text[at - sweep.origin ..][0..width].*;
        const second: Bytes = sweep.text[at - sweep.origin + 1 ..][0..width].*;
        var rest = pairs(first, second, 0xe2, 0x84) | pairs(first, second, 0xc4, 0xb0);
        while (rest != 0) : (rest &= rest - 1) {
            const place = at + @ctz(rest);
            while (place >= sweep.offsets[sweep.special + 1]) sweep.special += 1;
            if (sweep.special == sweep.done_special) continue;
            sweep.done_special = sweep.special;
            var mask: [1]Mask = undefined;
            automata.encode(sweep.automaton, sweep.whole, sweep.offsets + sweep.special, 1, &mask);
            sweep.add(sweep.special, mask[0]);
        }
    }
};

inline fn pairs(first: Bytes, second: Bytes, a: u8, b: u8) Bits {
    const is_first: Bits = @bitCast(first == @as(Bytes, @splat(a)));
    const is_second: Bits = @bitCast(second == @as(Bytes, @splat(b)));
    return is_first & is_second;
}

/// Bits of a vector that are noted at once.
const noted = @max(4, width / 8);

/// Notes the place of every bit. A loop over them would be mispredicted in most vectors: some are always written.
inline fn note(places: *[block + width]u16, count: usize, offset: usize, bits: Bits) usize {
    const found = @popCount(bits);
    var rest = bits;
    var at = count;
    while (true) {
        inline for (0..noted) |i| {
            places[at + i] = @truncate(offset + lowest(rest));
            rest &= rest -% 1;
        }
        at += noted;
        if (rest == 0) break;
    }
    return count + found;
}

/// The lowest bit's place. Named as the instruction that it is, since the compiler would gather several of them into
/// vectors, which is slower.
inline fn lowest(bits: Bits) usize {
    if (isa.current != .avx512 and isa.current != .avx2) return @ctz(bits);
    return asm ("tzcnt %[bits], %[place]"
        : [place] "=r" (-> u64),
        : [bits] "r" (@as(u64, bits)),
    );
}

/// `note` by an instruction of its own.
inline fn compress(places: *[block + width]u16, count: usize, offset: usize, bits: Bits) usize {
    const found = asm ("vpcompressb %[lanes], %[found] {%[bits]} {z}"
        : [found] "=v" (-> Bytes),
        : [lanes] "v" (std.simd.iota(u8, width)),
          [bits] "{k1}" (bits),
    );
    const half = width / 2;
    const base: @Vector(half, u16) = @splat(@intCast(offset));
    places[count..][0..half].* = base + @as(@Vector(half, u16), std.simd.extract(found, 0, half));
    const number = @popCount(bits);
    if (number > half) places[count + half ..][0..half].* = base + @as(@Vector(half, u16), std.simd.extract(found, half, half));
    return count + number;
}

/// table[byte], of the low seven bits.
inline fn permute(table: [2]Bytes, bytes: Bytes) Bytes {
    return asm ("vpermi2b %[high], %[low], %[bytes]"
        : [bytes] "=v" (-> Bytes),
        : [_] "0" (bytes),
          [low] "v" (table[0]),
          [high] "v" (table[1]),
    );
}

/// The buckets of every byte's low five bits.
inline fn lookup(tables: [2]Bytes, bytes: Bytes) Bytes {
    const letter = bytes & @as(Bytes, @splat(31));
    const low = if (isa.current == .neon) letter else letter +% @as(Bytes, @splat(0x70));
    return shuffle(tables[0], low) | shuffle(tables[1], letter -% @as(Bytes, @splat(16)));
}

/// table[index], in each run of 16; 0 where the index has bit 7 (x86) or is 16 or more (NEON).
inline fn shuffle(table: Bytes, index: Bytes) Bytes {
    return switch (isa.current) {
        .avx512 => asm ("vpshufb %[index], %[table], %[result]"
            : [result] "=v" (-> Bytes),
            : [table] "v" (table),
              [index] "v" (index),
        ),
        .avx2 => asm ("vpshufb %[index], %[table], %[result]"
            : [result] "=x" (-> Bytes),
            : [table] "x" (table),
              [index] "x" (index),
        ),
        .neon => asm ("tbl %[result].16b, {%[table].16b}, %[index].16b"
            : [result] "=w" (-> Bytes),
            : [table] "w" (table),
              [index] "w" (index),
        ),
        .baseline => unreachable,
    };
}

comptime {
    std.debug.assert(block % width == 0);
}

test "words are found as a search finds them, in texts of every length" {
    if (!available) return;
    // In the order of their entries: the second has the first's three letters in its window, two bytes on.
    const words = [_][]const u8{ "cat", "a-catneedlecatneedle", "needle", "edlen" };
    var entries: [words.len]Entry = undefined;
    var rest: [8]u8 = undefined;
    var slots: [1024]Slot = @splat(.{ .letters = 0, .entry = 0 });
    var filter: Filter = .{
        .tables = @splat(@splat(@splat(0))),
        .slots = &slots,
        .entries = &entries,
        .rest = &rest,
        .exact = undefined,
        .multiplier = 0x9e3779b1,
        .shift = 22,
        .has_byte_permutes = 0,
    };
    for (words, &entries, 0..) |word, *entry, number| {
        const before: usize = if (number == 1) 2 else 0;
        entry.* = .{
            .word = @splat(0),
            .fold = @splat(0),
            .bits = .{ .low = @as(u64, 1) << @intCast(number), .high = @as(u64, 16) << @intCast(number) },
            .rest = 0,
            .len = @intCast(word.len),
            .before = @intCast(before),
            .more = @intFromBool(number == 0),
            .reserved = 0,
            .compared = @as(u16, 0xffff) >> @intCast(head - @min(head, word.len)),
            .unused = @splat(0),
        };
        for (word, 0..) |byte, i| {
            const fold: u8 = if (byte == '-') 0 else 0x20;
            if (i < head) {
                entry.word[i] = byte;
                entry.fold[i] = fold;
            } else {
                rest[i - head] = byte;
                rest[word.len + i - 2 * head] = fold;
            }
        }
        for (0..window) |place| {
            const letter: usize = if (before + place < word.len) word[before + place] & 31 else 0;
            for (0..32) |any| if (letter == 0 or letter == any) {
                filter.tables[place][any / 16][any % 16] |= @as(u8, 1) << @intCast(number);
            };
        }
        const key = word[before..][0..3];
        const letters = @as(u32, key[0]) | @as(u32, key[1]) << 8 | @as(u32, key[2]) << 16;
        const slot = &slots[(letters *% filter.multiplier) >> 22];
        if (number == 1) try std.testing.expect(slot.letters != 0) else {
            try std.testing.expectEqual(0, slot.letters);
            slot.* = .{ .letters = letters, .entry = @intCast(number) };
        }
    }

    const nothing: Automaton = .{
        .class_of = &@as([256]u8, @splat(0)),
        .next = &[_]u16{0},
        .accept = &[_]Mask{},
        .shift = 0,
        .first_accepting = 1,
    };
    var random = std.Random.DefaultPrng.init(3);
    var text: [9000]u8 = undefined;
    var len: usize = 0;
    while (len < text.len) {
        const word = words[random.random().uintLessThan(usize, words.len)];
        const part = word[0..@min(text.len - len, random.random().intRangeAtMost(usize, 1, word.len))];
        for (part) |byte| {
            text[len] = if (random.random().uintLessThan(usize, 50) == 0) byte ^ 0x20 else byte;
            len += 1;
        }
    }
    var offsets: [90]u64 = undefined;
    offsets[0] = 5;
    for (offsets[1..], 0..) |*offset, i| offset.* = @min(text.len, offsets[i] + i % 7 * (i % 23) * 3);
    offsets[89] = text.len;
    var out: [89]Mask = @splat(.{ .low = 0, .high = 0 });
    encode(&filter, &nothing, &text, &offsets, out.len, &out);
    var met: u64 = 0;
    for (out, 0..) |mask, i| {
        const one = text[offsets[i]..offsets[i + 1]];
        var want: u64 = 0;
        for (words, 0..) |word, number| {
            if (std.ascii.indexOfIgnoreCase(one, word) != null) want |= @as(u64, 1) << @intCast(number);
        }
        try std.testing.expectEqual(want, mask.low);
        try std.testing.expectEqual(want << 4, mask.high);
        met |= want;
    }
    try std.testing.expectEqual(15, met);
}
