// Lab of the portable matrix products: kernels/matmul_bf16.cu, lora_matmul_bf16.cu, matmul_f32.cu, lora_matmul_f32.cu.
//
//     nvcc -std=c++17 -O3 -gencode=arch=compute_90a,code=sm_90a -Ikernels -o /tmp/matmul tools/lab/matmul.cu -lcuda -lcublas
//     /tmp/matmul
//
// Checks every entry against double loops on fresh random data, with NaN behind every buffer and in the gaps of strided ones,
// then times at M = 65792 (256 images of 257 tokens) against cuBLAS. Exits with 1 if a check failed.
//
// The ladder, bf16 on an H100, as a part of cuBLAS's rate for the plain product (which is wgmma; mma.sync has at most 0.62 of it):
//   1. 128 x 128 x 32 tiles, 4 stages of cp.async, 8 warps of 64 x 32, 2 blocks a multiprocessor, outputs exchanged within quads
//      for 16-byte accesses. Predicted 0.55 at K 1536, 0.65 at K 384. Measured: nt 0.53 at K 1536; 0.55, 0.73, 0.52 at K 384 with
//      N 1152, 384, 1536; nn 0.52 to 0.75. Kept.
//      A's rows in the loop, r 8: predicted + 15%, measured + 37%: t's own ldmatrix cost as much as its products. Taking t's left
//      fragments from those of the tile instead spills at 128 registers: dropped.
//      GELU by erff: predicted + 40%, measured + 38%. LayerScale and residual + 39%, in f32 + 68%: each row's residual is waited for.
//      Weight's gradient: 264 blocks 0.53, 528 0.52, 1056 0.46: 264 kept.
//   2. GELU by common/gelu.cuh; residual and pre-activation read for 4 rows at once before the first is used. Predicted GELU + 20%,
//      residual + 20%. f32 products held to 128 registers for 2 blocks a multiprocessor: predicted + 20%.
//      Measured: benches/results/lab-h100.txt.

#include "matmul_data.cuh"

#if __has_include(<cublas_v2.h>)
#include <cublas_v2.h>
#define WITH_CUBLAS 1
#endif

static int failures = 0;

// Prints the largest error in units of what is allowed: the roundings to bf16 and the f32 sum's own error.
static void check(const Case& s) {
    Data d(s);
    d.run(s);
    CUDA(cudaDeviceSynchronize());
    const auto first = d.c.raw();
    d.run(s);
    CUDA(cudaDeviceSynchronize());
    const bool same = first == d.c.raw();
    bool guards = d.c.download();
    if (s.finish == GELU) guards = d.aux.download() && guards;
    double worst = 0, worst_t = 0;
    for (size_t i = 0; i < s.adapters.size(); ++i) {
        if (!s.adapters[i].given) guards = d.t[i].download() && guards;
    }
    const double half = s.f32 ? 0 : 1.0 / 250;  // relative: a rounding to bf16 is 1 / 256 at most, of what is off itself
    std::vector<unsigned> rows;
    const unsigned most = s.layout == TN && s.k > 10000 ? 2 : 12;
    if (s.m <= 2 * most) {
        for (unsigned i = 0; i < s.m; ++i) rows.push_back(i);
    } else {
        rows = {0, s.m - 1, s.m / 128 * 128 - 1 < s.m ? s.m / 128 * 128 - 1 : 0};
        while (rows.size() < most) rows.push_back(random_bits() % s.m);
    }
    const auto note = [](double& worst, double got, double want, double allowed) {
        const double error = std::abs(got - want) / allowed;
        worst = std::isnan(error) ? INFINITY : std::max(worst, error);
    };
    for (unsigned i : rows) {
        // t of this row, as the device rounded it once it has been found right.
        for (size_t x = 0; x < s.adapters.size(); ++x) {
            if (s.adapters[x].given) continue;
            for (unsigned r = 0; r < s.adapters[x].rank_padded(); ++r) {
                double sum = 0, size = 0;
                for (unsigned k = 0; k < s.k; ++k) {
                    const double term = static_cast<double>(d.a.at(i, k)) * d.adapter_a[x].at(r, k);
                    sum += term, size += std::abs(term);
                }
                note(worst_t, d.t[x].at(i, r), sum, half * std::abs(sum) + 2e-6 * size + 1e-30);
            }
        }
        for (unsigned j = 0; j < s.n; ++j) {
            double sum = 0, size = 0;
            const auto add = [&](double left, double right) { sum += left * right, size += std::abs(left * right); };
            for (unsigned k = 0; k < s.k; ++k) {
                add(s.layout == TN ? d.a.at(k, i) : d.a.at(i, k), s.layout == NT ? d.b.at(j, k) : d.b.at(k, j));
            }
            for (unsigned k = 0; k < s.k2; ++k) add(d.a2.at(i, k), s.layout == NT ? d.b2.at(j, k) : d.b2.at(k, j));
            for (size_t x = 0; x < s.adapters.size(); ++x) {
                const AdapterSpec& spec = s.adapters[x];
                if (j < spec.first_row || j >= spec.first_row + spec.rows) continue;
                for (unsigned r = 0; r < spec.rank; ++r) {
                    const float scaled = d.p.adapters[x].scale * d.t[x].at(i, r);
                    add(s.f32 ? scaled : rounded(scaled), d.adapter_b[x].at(j - spec.first_row, r));
                }
                if (spec.gain) sum *= d.gain[x].at(0, j - spec.first_row), size *= 1.5;
            }
            if (d.p.bias) sum += d.bias.at(0, j);
            size += std::abs(sum);
            const double own = 2e-6 * size + 1e-30;
            const double got = d.c.at(i, j);
            double want = sum, allowed = own + half * std::abs(sum);
            if (s.layout == TN) allowed = own;
            if (s.finish == GELU) {
                note(worst, d.aux.at(i, j), sum, allowed);
                want = gelu_of(d.aux.at(i, j)), allowed = half * std::abs(want) + 1e-6;
            } else if (s.finish == GELU_BACKWARD) {
                want = sum * gelu_slope_of(d.aux.at(i, j));
                allowed = (own + half * std::abs(sum)) * 1.2 + half * std::abs(want);
            } else if (s.finish == SCALE_RESIDUAL || s.finish == SCALE_RESIDUAL_F32) {
                want = d.residual.at(i, j) + static_cast<double>(d.gamma.at(0, j)) * sum;
                allowed = std::abs(d.gamma.at(0, j)) * (own + half * std::abs(sum)) + 1e-6;
                if (s.finish == SCALE_RESIDUAL) allowed += half * std::abs(want);
            }
            note(worst, got, want, allowed);
        }
    }
    const bool pass = same && guards && worst <= 1 && worst_t <= 1;
    failures += !pass;
    std::printf("%-36s m %5u n %4u k %5u k2 %3u gaps %u,%u splits %2u adapters %zu  error %.3f of allowed, t %.3f%s%s  %s\n", s.name,
                s.m, s.n, s.k, s.k2, s.gap_a, s.gap_b, s.splits, s.adapters.size(), worst, worst_t, same ? "" : ", DIFFERS",
                guards ? "" : ", GUARDS WRITTEN", pass ? "PASS" : "FAIL");
}

static double milliseconds(const std::function<void()>& work) {
    cudaEvent_t start, stop;
    CUDA(cudaEventCreate(&start));
    CUDA(cudaEventCreate(&stop));
    std::vector<float> times;
    for (int i = 0; i < 33; ++i) {
        CUDA(cudaEventRecord(start));
        work();
        CUDA(cudaEventRecord(stop));
        CUDA(cudaEventSynchronize(stop));
        float ms;
        CUDA(cudaEventElapsedTime(&ms, start, stop));
        if (i >= 8) times.push_back(ms);
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

#define ENTRY(NAME) #NAME, NAME

static void checks() {
    struct Shape { unsigned m, n, k, gap_a, gap_b; };
    const std::vector<Shape> shapes = {
        {2056, 1152, 384, 0, 0}, {514, 384, 1536, 0, 0}, {257, 1536, 384, 0, 0}, {257, 384, 588, 0, 0}, {1, 1, 1, 0, 0},
        {1, 8, 3, 0, 0},         {3, 5, 7, 1, 0},        {127, 129, 33, 0, 0},   {129, 127, 31, 0, 0},  {128, 128, 32, 0, 0},
        {130, 100, 64, 8, 16},   {65, 256, 96, 2, 6},    {200, 72, 97, 4, 3},    {33, 1000, 40, 0, 0},  {256, 20, 384, 0, 0},
        {2, 384, 2, 0, 0},       {300, 136, 130, 1, 1},
    };
    for (const Shape& s : shapes) {
        const auto run = [&](Case c) {
            c.m = s.m, c.n = s.n, c.k = s.k, c.gap_a = s.gap_a, c.gap_b = s.gap_b;
            check(c);
        };
        run({ENTRY(matmul_nt_bf16), false, NT, PLAIN});
        run({ENTRY(matmul_nt_bf16_gelu), false, NT, GELU});
        run({ENTRY(matmul_nt_bf16_scale_residual), false, NT, SCALE_RESIDUAL});
        run({ENTRY(matmul_nt_bf16_scale_residual_f32), false, NT, SCALE_RESIDUAL_F32});
        run({ENTRY(matmul_nn_bf16), false, NN, PLAIN});
        run({ENTRY(matmul_nn_bf16_gelu_backward), false, NN, GELU_BACKWARD});
        run({ENTRY(matmul_tn_bf16), false, TN, PLAIN});
        run({ENTRY(matmul_nt_f32), true, NT, PLAIN});
        run({ENTRY(matmul_nt_f32_gelu), true, NT, GELU});
        run({ENTRY(matmul_nt_f32_scale_residual), true, NT, SCALE_RESIDUAL});
        run({ENTRY(matmul_nn_f32), true, NN, PLAIN});
        run({ENTRY(matmul_nn_f32_gelu_backward), true, NN, GELU_BACKWARD});
        run({ENTRY(matmul_tn_f32), true, TN, PLAIN});
        for (Case c : {Case{ENTRY(matmul_nt_f32_small), true, NT, PLAIN}, Case{ENTRY(matmul_nn_f32_small), true, NN, PLAIN},
                       Case{ENTRY(matmul_tn_f32_small), true, TN, PLAIN}}) {
            c.tile = 32;
            run(c);
        }
        // A second product, splits.
        for (unsigned k2 : {16u, 48u, 5u}) {
            Case c{ENTRY(matmul_nn_bf16), false, NN, PLAIN};
            c.k2 = k2, run(c);
            Case d{ENTRY(matmul_nt_bf16), false, NT, PLAIN};
            d.k2 = k2, run(d);
            Case e{ENTRY(matmul_nn_f32), true, NN, PLAIN};
            e.k2 = k2, run(e);
        }
        for (unsigned splits : {2u, 7u}) {
            Case c{ENTRY(matmul_tn_bf16), false, TN, PLAIN};
            c.splits = splits, run(c);
            Case d{ENTRY(matmul_tn_f32), true, TN, PLAIN};
            d.splits = splits, run(d);
        }
        // Adapters: on q and v, on everything, with boundaries that no tile knows.
        std::vector<std::vector<AdapterSpec>> sets = {{{0, s.n, 8, true, false}}, {{0, s.n, 17, false, false}}, {{0, s.n, 100, true, true}}};
        if (s.n >= 3) {
            const unsigned third = s.n / 3;
            sets.push_back({{0, third, 8, true, false}, {2 * third, third, 8, false, false}});
            sets.push_back({{0, third, 1, false, false}, {third, third, 3, true, false}, {2 * third, s.n - 2 * third, 32, true, false}});
            sets.push_back({{1, 1, 3, true, false}, {2, s.n - 2, 40, true, true}});
        }
        for (const auto& set : sets) {
            for (Case c : {Case{ENTRY(lora_matmul_bf16), false, NT, PLAIN}, Case{ENTRY(lora_matmul_bf16_gelu), false, NT, GELU},
                           Case{ENTRY(lora_matmul_bf16_scale_residual), false, NT, SCALE_RESIDUAL},
                           Case{ENTRY(lora_matmul_bf16_scale_residual_f32), false, NT, SCALE_RESIDUAL_F32},
                           Case{ENTRY(lora_matmul_f32), true, NT, PLAIN}, Case{ENTRY(lora_matmul_f32_gelu), true, NT, GELU},
                           Case{ENTRY(lora_matmul_f32_scale_residual), true, NT, SCALE_RESIDUAL}}) {
                if (s.m > 1000 && c.f32) continue;
                c.adapters = set;
                c.bias = set.size() != 2;
                run(c);
            }
        }
    }
}

#ifdef WITH_CUBLAS
static cublasHandle_t cublas;

static double cublas_milliseconds(Layout layout, bool f32_out, unsigned m, unsigned n, unsigned k, const Data& d) {
    const float one = 1, zero = 0;
    const auto b_op = layout == NT ? CUBLAS_OP_T : CUBLAS_OP_N, a_op = layout == TN ? CUBLAS_OP_T : CUBLAS_OP_N;
    return milliseconds([&] {
        const auto status =
            cublasGemmEx(cublas, b_op, a_op, n, m, k, &one, d.b.device, CUDA_R_16BF, d.b.stride, d.a.device, CUDA_R_16BF,
                         d.a.stride, &zero, d.c.device, f32_out ? CUDA_R_32F : CUDA_R_16BF, n, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
        if (status != CUBLAS_STATUS_SUCCESS) std::printf("cuBLAS: %d\n", static_cast<int>(status));
    });
}
#endif

static void time(Case s) {
    Data d(s);
    const double ms = milliseconds([&] { d.run(s); });
    const double flop = 2.0 * s.m * s.n * s.k;
    std::printf("%-36s m %5u n %5u k %5u splits %2u adapters %zu: %7.4f ms %6.1f TFLOP/s", s.name, s.m, s.n, s.k, s.splits,
                s.adapters.size(), ms, flop / ms * 1e-9);
#ifdef WITH_CUBLAS
    if (!s.f32) {
        const double peer = cublas_milliseconds(s.layout, s.layout == TN, s.m, s.n, s.k, d);
        std::printf("   cuBLAS's plain product %7.4f ms %6.1f TFLOP/s: %.2f of it", peer, flop / peer * 1e-9, peer / ms);
    }
#endif
    std::printf("\n");
}

int main(int count, char** arguments) {
    cudaDeviceProp device;
    CUDA(cudaGetDeviceProperties(&device, 0));
    std::printf("%s, %d multiprocessors\n", device.name, device.multiProcessorCount);
    for (auto kernel : {matmul_nt_bf16, matmul_nn_bf16, matmul_tn_bf16, lora_matmul_bf16}) {
        const unsigned shared = gemm_bf16::product_bf16_shared_bytes<true>();
        int blocks;
        CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
        CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, 256, shared));
        std::printf("blocks a multiprocessor: %d\n", blocks);
    }
    state ^= count > 1 ? std::strtoull(arguments[1], nullptr, 0) : 0x9e3779b97f4a7c15ull;
    checks();
    std::printf("%d checks failed\n\n", failures);

#ifdef WITH_CUBLAS
    cublasCreate(&cublas);
#endif
    const unsigned m = 65792;
    struct Size { unsigned n, k; };
    for (Size z : {Size{1152, 384}, Size{384, 384}, Size{1536, 384}, Size{384, 1536}}) {
        time({ENTRY(matmul_nt_bf16), false, NT, PLAIN, m, z.n, z.k});
        time({ENTRY(matmul_nt_bf16_gelu), false, NT, GELU, m, z.n, z.k});
        time({ENTRY(matmul_nt_bf16_scale_residual), false, NT, SCALE_RESIDUAL, m, z.n, z.k});
        time({ENTRY(matmul_nt_bf16_scale_residual_f32), false, NT, SCALE_RESIDUAL_F32, m, z.n, z.k});
        Case lora{ENTRY(lora_matmul_bf16), false, NT, PLAIN, m, z.n, z.k};
        lora.adapters = {{0, z.n, 8, true, false}};
        time(lora);
        if (z.n == 1152) {
            lora.adapters = {{0, 384, 8, true, false}, {768, 384, 8, true, false}};
            time(lora);
        }
        lora.adapters = {{0, z.n, 32, true, false}};
        time(lora);
        lora.adapters = {{0, z.n, 128, true, true}};
        time(lora);
        // The input's gradient of the linear [n, k]: dy [m, n] W.
        time({ENTRY(matmul_nn_bf16), false, NN, PLAIN, m, z.k, z.n});
        Case second{ENTRY(matmul_nn_bf16), false, NN, PLAIN, m, z.k, z.n};
        second.k2 = 16;
        time(second);
        time({ENTRY(matmul_nn_bf16_gelu_backward), false, NN, GELU_BACKWARD, m, z.k, z.n});
        // Its weight's gradient: dy^T x [n, k].
        const unsigned tiles = ceil_div(z.n, 128) * ceil_div(z.k, 128);
        for (unsigned blocks : {264u, 528u, 1056u}) {
            Case weight{ENTRY(matmul_tn_bf16), false, TN, PLAIN, z.n, z.k, m};
            weight.splits = std::max(1u, blocks / tiles);
            time(weight);
        }
        std::printf("\n");
    }
    time({ENTRY(matmul_nt_bf16), false, NT, PLAIN, 65536, 384, 588});
    time({ENTRY(matmul_nt_bf16), false, NT, PLAIN, 65536, 384, 592});
    time({ENTRY(matmul_nt_bf16), false, NT, PLAIN, 4112, 384, 384});
    time({ENTRY(matmul_nt_bf16), false, NT, PLAIN, 4112, 1536, 384});
    time({ENTRY(matmul_nt_bf16), false, NT, PLAIN, 8192, 8192, 8192});
    time({ENTRY(matmul_nt_f32), true, NT, PLAIN, 16448, 1152, 384});
    time({ENTRY(matmul_nn_f32), true, NN, PLAIN, 16448, 384, 1152});
    Case weight{ENTRY(matmul_tn_f32), true, TN, PLAIN, 1152, 384, 16448};
    weight.splits = 10;
    time(weight);
    Case lora{ENTRY(lora_matmul_f32), true, NT, PLAIN, 16448, 1152, 384};
    lora.adapters = {{0, 384, 8, true, false}, {768, 384, 8, true, false}};
    time(lora);
    for (Case c : {Case{ENTRY(matmul_nt_f32_small), true, NT, PLAIN, 256, 100, 384}, Case{ENTRY(matmul_nn_f32_small), true, NN, PLAIN, 256, 384, 100},
                   Case{ENTRY(matmul_tn_f32_small), true, TN, PLAIN, 100, 384, 256}}) {
        c.tile = 32;
        time(c);
    }
    std::printf("%s\n", failures ? "FAIL" : "PASS");
    return failures != 0;
}
