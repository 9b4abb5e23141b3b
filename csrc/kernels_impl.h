// The inner loops. No include guard: each kernels_*.cpp includes this once, under its own compiler target,
// after it has defined
//     FEDTLU_LEVEL, FEDTLU_KERNELS       the level's name and its table
//     Doubles, Floats                    vectors of the same number of elements
//     widen(Floats), narrow(Doubles)     between the two, rounded to nearest
//     Words, words(const std::byte*)     as many 32-bit integers, from 16-bit ones
//     halves(const std::byte*)           float16 elements as Floats
//     add_exact_square(sum, x)           sum + x * x where x * x is exact in double
//     add_fused(sum, x, one)             sum + x; on the units of multiplication, if addition's are scarce
//     kStaged                            whether sums of 16-bit elements go by `stage_words`, `stage_halves`:
//                                        a block of bfloat16 or float16 elements, to memory as float32, in
//                                        the order of its lanes
//     Singles, kRows, kColumns           see perceptron_impl.h
//     add_square(sum, x)                 sum + x * x of Singles, rounded once or twice
//     lanes_added<n>(out, singles)       out[i] = the sum of the lanes of singles[i] for i < n, 8 or 16
//
// Everything here has internal linkage and no template of the standard library is instantiated: the linker
// must never pick code compiled for a wider machine for the rest of the program.
//
// Multiplication and addition stay separate on every level: a fused one rounds differently, unless the
// product is exact in double, or only a bound is formed (`add_square`).

#include "perceptron/perceptron_impl.h"
#include "simd.h"

// What the loops below read and write.
#include "formats_impl.h"

// The loops.
#include "columns_impl.h"
#include "distances_impl.h"
#include "sums_impl.h"
#include "updates_impl.h"

namespace fedtlu {

const Kernels FEDTLU_KERNELS = {
    FEDTLU_LEVEL,
    {sums<Float32>, sums<Bfloat16>, sums<Float16>, sums<Float64>},
    {sums_of_short<Float32>, sums_of_short<Bfloat16>, sums_of_short<Float16>, nullptr},
    {update<Float32>, update<Bfloat16>, update<Float16>, update<Float64>},
    {add<Float32>, add<Bfloat16>, add<Float16>, add<Float64>},
    {round<Float32>, round<Float32>, round<Float32>, round<Float64>},
    train_client,
    {sort_tile<kTileColumns>, sort_tile<kTileColumns / 2>, sort_tile<kTileColumns / 4>},
    widen_row,
    squares,
    pair_squares,
    single_pair_squares};

}  // namespace fedtlu
