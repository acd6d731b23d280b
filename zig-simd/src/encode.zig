//! Encode: a dense automaton over many texts; each text's mask is the union of what its visited states accept.
//!
//! One text is a chain of dependent loads (state -> next state), so several texts advance together and hide each
//! other's latency. A branch for accepting states would be mispredicted at every word: instead, the state is always
//! written to the end of the text's list, and the list grows only where the state accepts. The lists are read after
//! every `run_bytes`. (A branch was measured at 0.6 of the speed, on texts with words at natural rates.)
//!
//! Folding of case and of non-ASCII letters is the automaton's business.
const std = @import("std");

/// Texts in flight: the best of 2, 3, 4, 6 and 8. With more, pointers, states and counts leave the registers.
const width = 4;
const run_bytes = 512;

pub const Mask = extern struct {
    low: u64,
    high: u64,

    comptime {
        std.debug.assert(@sizeOf(Mask) == 16 and @alignOf(Mask) == 8);
    }
};

/// State 0 is the root; states from `first_accepting` on have outputs, accept[state - first_accepting].
/// next[(state << shift) | class_of[byte]] is the state after `byte`.
pub const Automaton = extern struct {
    class_of: *const [256]u8,
    next: [*]const u16,
    accept: [*]const Mask,
    shift: u32,
    first_accepting: u32,

    comptime {
        std.debug.assert(@sizeOf(Automaton) == 3 * @sizeOf(usize) + 8);
    }
};

/// A class is a byte, so no automaton needs a larger shift.
pub const max_shift = 8;

/// out[t] = mask of text t, whose bytes are text[offsets[t]..offsets[t + 1]].
pub fn encode(automaton: *const Automaton, text: [*]const u8, offsets: [*]const u64, count: usize, out: [*]Mask) void {
    switch (automaton.shift) {
        inline 0...max_shift => |shift| Scan(shift).run(automaton, text, offsets, count, out),
        else => unreachable,
    }
}

/// Where one text stands. `left` is 0 when it is done.
const Cursor = struct {
    at: [*]const u8,
    left: usize,
    state: u32,
    text: usize,
};

/// The loops, with the shift known at compile time.
fn Scan(comptime shift: u5) type {
    return struct {
        fn run(automaton: *const Automaton, text: [*]const u8, offsets: [*]const u64, count: usize, out: [*]Mask) void {
            for (out[0..count]) |*mask| mask.* = .{ .low = 0, .high = 0 };
            var texts: Texts = .{ .text = text, .offsets = offsets, .count = count };
            var cursors: [width]Cursor = @splat(.{ .at = text, .left = 0, .state = 0, .text = 0 });
            together: while (true) {
                for (&cursors) |*cursor| {
                    if (cursor.left == 0) cursor.* = texts.next() orelse break :together;
                }
                var length: usize = run_bytes;
                for (cursors) |cursor| length = @min(length, cursor.left);
                advance(width, automaton, &cursors, length, out);
            }
            for (&cursors) |*cursor| {
                while (cursor.left != 0) advance(1, automaton, cursor[0..1], @min(run_bytes, cursor.left), out);
            }
        }

        /// Moves each cursor on by `length` (<= `run_bytes`, <= what is left) bytes.
        inline fn advance(
            comptime lanes: comptime_int,
            automaton: *const Automaton,
            cursors: *[lanes]Cursor,
            length: usize,
            out: [*]Mask,
        ) void {
            const class_of = automaton.class_of;
            const next = automaton.next;
            const first_accepting = automaton.first_accepting;
            var accepted: [lanes][run_bytes]u16 = undefined;
            var counts: [lanes]usize = @splat(0);
            var states: [lanes]usize = undefined;
            inline for (0..lanes) |lane| states[lane] = cursors[lane].state;

            for (0..length) |i| {
                inline for (0..lanes) |lane| {
                    const class: usize = class_of[cursors[lane].at[i]];
                    const state = next[(states[lane] << shift) | class];
                    states[lane] = state;
                    accepted[lane][counts[lane]] = state;
                    counts[lane] += @intFromBool(state >= first_accepting);
                }
            }
            inline for (0..lanes) |lane| {
                const cursor = &cursors[lane];
                const mask = &out[cursor.text];
                for (accepted[lane][0..counts[lane]]) |state| {
                    mask.low |= automaton.accept[state - first_accepting].low;
                    mask.high |= automaton.accept[state - first_accepting].high;
                }
                cursor.at += length;
                cursor.left -= length;
                cursor.state = @intCast(states[lane]);
            }
        }
    };
}

/// The texts that are not empty, in order.
const Texts = struct {
    text: [*]const u8,
    offsets: [*]const u64,
    count: usize,
    position: usize = 0,

    inline fn next(texts: *Texts) ?Cursor {
        while (texts.position < texts.count) {
            const position = texts.position;
            texts.position += 1;
            const begin: usize = @intCast(texts.offsets[position]);
            const end: usize = @intCast(texts.offsets[position + 1]);
            if (begin != end) return .{ .at = texts.text + begin, .left = end - begin, .state = 0, .text = position };
        }
        return null;
    }
};

test "the words a, ab and b are found in texts of every length" {
    // Classes: 0 other, 1 a, 2 b. States: 0 root, 1 after a, 2 after b, 3 after ab; all but the root accept.
    var class_of: [256]u8 = @splat(0);
    class_of['a'] = 1;
    class_of['b'] = 2;
    const next = [_]u16{ 0, 1, 2, 0, 0, 1, 3, 0, 0, 1, 2, 0, 0, 1, 2, 0 };
    const accept = [_]Mask{ .{ .low = 1, .high = 0 }, .{ .low = 0, .high = 4 }, .{ .low = 2, .high = 4 } };
    const automaton: Automaton = .{
        .class_of = &class_of,
        .next = &next,
        .accept = &accept,
        .shift = 2,
        .first_accepting = 1,
    };

    var random = std.Random.DefaultPrng.init(3);
    var text: [5000]u8 = undefined;
    for (&text) |*byte| byte.* = "ab......"[random.random().uintLessThan(usize, 8)];
    var offsets: [60]u64 = undefined;
    offsets[0] = 0;
    for (offsets[1..], 0..) |*offset, i| offset.* = @min(text.len, offsets[i] + i % 7 * (i % 23) * 2);
    offsets[59] = text.len;
    var out: [59]Mask = undefined;
    encode(&automaton, &text, &offsets, out.len, &out);
    for (out, 0..) |mask, i| {
        const words = text[offsets[i]..offsets[i + 1]];
        const has_a = std.mem.indexOfScalar(u8, words, 'a') != null;
        const has_b = std.mem.indexOfScalar(u8, words, 'b') != null;
        const has_ab = std.mem.indexOf(u8, words, "ab") != null;
        try std.testing.expectEqual(@as(u64, @intFromBool(has_a)) + @as(u64, 2) * @intFromBool(has_ab), mask.low);
        try std.testing.expectEqual(@as(u64, 4) * @intFromBool(has_b), mask.high);
    }
}
