//! The screen against the formula it documents, one row and query at a time.
const std = @import("std");
const screen = @import("screen.zig");
const expectEqual = std.testing.expectEqual;

const groups = 7;
const max_queries = 11;
const max_quads = 9;
const capacity = 40;

const Fixture = struct {
    codes: [groups * max_quads * 64]u8,
    columns: [groups * 64]f32,
    queries: [max_queries * max_quads * 4]i8,
    biases: [max_queries]i32,
    params: [max_queries]screen.QueryParams,

    fn init(random: std.Random, quads: usize) Fixture {
        var fixture: Fixture = undefined;
        for (&fixture.codes) |*code| code.* = random.intRangeAtMost(u8, 1, 255);
        for (&fixture.columns, 0..) |*column, i| {
            column.* = if (i / 16 % 4 < 2) random.floatNorm(f32) else @abs(random.floatNorm(f32));
        }
        for (&fixture.queries) |*code| code.* = random.intRangeAtMost(i8, -127, 127);
        for (0..max_queries) |q| {
            fixture.biases[q] = 0;
            for (fixture.queries[q * quads * 4 ..][0 .. quads * 4]) |code| fixture.biases[q] -= 128 * @as(i32, code);
            fixture.params[q] = .{ .scale = 1e-4, .a = 0.01, .b = 0.02, .threshold = random.floatNorm(f32) * 4, .slack = 0 };
        }
        return fixture;
    }

    /// What the screen must decide about one row and query: the candidate, or nothing.
    fn expected(fixture: *const Fixture, quads: usize, row: usize, q: usize, threshold: f32) ?screen.Candidate {
        var sum: i32 = 0;
        for (0..quads) |quad| for (0..4) |d| {
            const code: i32 = fixture.codes[((row / 16 * quads + quad) * 16 + row % 16) * 4 + d];
            sum += (code - 128) * fixture.queries[(q * quads + quad) * 4 + d];
        };
        const columns = fixture.columns[row / 16 * 64 + row % 16 ..];
        const params = fixture.params[q];
        const score = (@as(f32, @floatFromInt(sum)) * params.scale) * columns[0] + columns[16];
        const err = params.a * columns[32] + params.b * columns[48];
        if (score + err < threshold) return null;
        return .{ .row = @intCast(1000 + row), .lower = score - err, .upper = score + err };
    }
};

/// Runs the screen over all groups, taking the candidates out whenever it stops, and compares every one.
fn check(fixture: *const Fixture, quads: usize, query_count: usize, k: usize, slack: f32, both: bool) !void {
    var params = fixture.params;
    var thresholds: [max_queries]f32 = undefined;
    for (&params, &thresholds) |*p, *threshold| {
        p.slack = slack;
        // A low one, so that much of what passes is up to the best lower bounds.
        if (k > 0) p.threshold -= 6;
        threshold.* = p.threshold;
    }
    const registers = (k + 15) / 16;
    var best: [max_queries * 32]f32 = @splat(-std.math.inf(f32));
    var model: [max_queries][groups * 16]f32 = undefined;
    var met: [max_queries]usize = @splat(0);
    var candidates: [max_queries * (capacity + 3)]screen.Candidate = undefined;
    var counts: [max_queries]u32 = @splat(0);
    var least: [1000 + groups * 16]f32 = undefined;
    for (least[1000..], 0..) |*value, row| value.* = fixture.columns[row] * 8 + 2;
    var shifts: [max_queries]f32 = undefined;
    for (&shifts, 0..) |*shift, q| shift.* = if (q == 3) -std.math.inf(f32) else @as(f32, @floatFromInt(q)) / 4;
    var pairs: [groups * 16 * max_queries]screen.Pair = undefined;
    var back: screen.Back = .{
        .least = &least,
        .shifts = &shifts,
        .pairs = &pairs,
        .count = 0,
        .capacity = 2 * 16 * max_queries,
    };
    var job: screen.Job = .{
        .codes = &fixture.codes,
        .columns = &fixture.columns,
        .group_begin = 0,
        .group_end = groups,
        .quads = quads,
        .queries = &fixture.queries,
        .biases = &fixture.biases,
        .params = &params,
        .query_count = query_count,
        .best = &best,
        .best_registers = registers,
        .k = k,
        .candidates = &candidates,
        .counts = &counts,
        .stride = capacity + 3,
        .capacity = capacity,
        .row_base = 1000,
        .reserved = 0,
        .back = if (both) &back else null,
    };
    while (job.group_begin < groups) {
        const reached = screen.screen(&job);
        try std.testing.expect(reached > job.group_begin);
        for (0..query_count) |q| {
            var found: usize = 0;
            for (job.group_begin * 16..reached * 16) |row| {
                const candidate = fixture.expected(quads, row, q, thresholds[q]) orelse continue;
                try expectEqual(candidate, candidates[q * (capacity + 3) + found]);
                found += 1;
                model[q][met[q]] = candidate.lower;
                met[q] += 1;
                std.mem.sort(f32, model[q][0..met[q]], {}, std.sort.desc(f32));
                if (k == 0 or met[q] < k) continue;
                const kth = model[q][k - 1];
                const lowered: f32 = @floatCast(@as(f64, kth) - slack);
                const next = if (slack == 0) kth else std.math.nextAfter(f32, lowered, -std.math.inf(f32));
                thresholds[q] = @max(thresholds[q], next);
            }
            try expectEqual(found, counts[q]);
            try expectEqual(thresholds[q], params[q].threshold);
            counts[q] = 0;
            for (job.group_begin * 16..reached * 16) |row| {
                const candidate = fixture.expected(quads, row, q, -std.math.inf(f32)).?;
                if (!both or candidate.upper + shifts[q] < least[1000 + row]) continue;
                const pair: screen.Pair = .{
                    .query = @intCast(q),
                    .row = candidate.row,
                    .lower = candidate.lower,
                    .upper = candidate.upper,
                };
                const noted = back.count;
                for (pairs[0..noted], 0..) |other, at| if (std.meta.eql(pair, other)) {
                    back.count -= 1;
                    pairs[at] = pairs[back.count];
                    break;
                };
                try expectEqual(noted - 1, back.count);
            }
        }
        try expectEqual(0, back.count);
        job.group_begin = reached;
    }
}

test "candidates equal the formula, across calls that stop for room" {
    var random = std.Random.DefaultPrng.init(17);
    for ([_]usize{ 0, 1, 2, 3, 4, 5, 8, 9 }) |quads| for (0..max_queries + 1) |query_count| {
        const fixture = Fixture.init(random.random(), quads);
        for ([_]usize{ 0, 1, 2, 15, 16, 17, 31, 32 }) |k| {
            try check(&fixture, quads, query_count, k, 0, false);
            try check(&fixture, quads, query_count, k, 0.25, false);
            try check(&fixture, quads, query_count, k, 0.25, true);
        }
    };
}
