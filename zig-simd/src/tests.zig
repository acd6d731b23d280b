//! Gathers the kernels' own tests; `zig build test` runs them for each instruction set.
test {
    _ = @import("vector.zig");
    _ = @import("exact.zig");
    _ = @import("narrow.zig");
    _ = @import("bits.zig");
    _ = @import("quantise.zig");
    _ = @import("screen.zig");
    _ = @import("screen_test.zig");
    _ = @import("nibbles.zig");
    _ = @import("encode.zig");
    _ = @import("filter.zig");
    _ = @import("nearest.zig");
    _ = @import("gate.zig");
    _ = @import("roofline.zig");
}
