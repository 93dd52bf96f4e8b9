// The adapters' kernels against plain loops in double, and their times.
//
//     nvcc -std=c++17 -O3 -gencode=arch=compute_90a,code=sm_90a -Ikernels -lcuda -o adapter tools/lab/adapter.cu && ./adapter
//
// Ladder (H100, m 65792 = 256 images of 257 tokens, k 384, rank 8 padded to 16; floor: x and dy once at 2.96 TB/s):
//   gradients
//   1. Q by its own kernel, then one kernel a gradient: dy twice, x once. q and v: 252 MB, so 85 us at best. Not built for this size; it
//      is the path above 1536 rows.
//   2. Q and dB from one pass over dy (columns of a tile split over the warps, for Q as the depth and for dB as the width, the warps'
//      shares of Q^T added in shared memory), dA of all adapters from one pass over x. q and v: floor 51 us, predicted 75 us, measured
//      93.9 us (output 57.9, input 36.8, reduce 8.4); one adapter: floor 34, measured 66.6 us.
//      Those times were taken behind a memset, which leaves 50 MB in L2 to be written back, 17 us of each first pass: with them both passes
//      run at the card's bandwidth. Since then L2 is flushed by reading.
//   3. A block a granule of m / 132 tokens: one block a multiprocessor for one adapter, two for q and v. Kept.
//   norm and merging: 8 rows of W a block, 4 columns a thread, A from L2, grid (most rows / 8, items)
//   1. Predicted 10 us for the norms of q and v, 50 us to merge all linears; measured 17.1 and 112 us: of 13824 blocks 8640 had no rows and
//      waited for their item all the same.
//   2. A flat grid, every block finds its item among all; W prefetched to L2 while B is read. Predicted 10 and 65 us; measured
//      17.9 and 83.4 us. Gradients without the dirty lines: q and v 85.1 us, one adapter 60.8 us.
//   3. A warp its own rows (4 of 384 columns), nothing waits for a block; W asked for first, into the registers it stays in until it is
//      written; A from L1 for the block's 4 warps; items in the launch's parameters, found by halving. Predicted 9 us for the norms of q and v, 12
//      us to merge them, 50 us for the norms of all linears at rank 16, 60 us to merge them; not measured yet.
//   gradients with dg
//   1. dg by a kernel of its own an adapter: dy again and y. Measured 44 us an adapter, and 4 us for its reduction.
//   2. In the pass over dy: tiles of 16 tokens of dy and of y beside each other, column sums from shared memory, one reduction for all.
//      Predicted for q and v: output 90 us instead of 50 + 2 * 44; not measured yet.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <string>
#include <tuple>
#include <vector>

#include "common/cut.cuh"
#include "cut.cuh"
#include "common/adapted_rows.cuh"
#include "common/gain_gradient.cuh"
#include "common/lora_tiles.cuh"
#include "common/reduce.cuh"
#include "params.h"
namespace lora_bf16 {
#include "lora_gradients.cu"
}
namespace lora_f32 {
#include "lora_gradients_f32.cu"
}
namespace packing {
#include "adapter_pack.cu"
}
namespace norms {
#include "dora_norm.cu"
}
namespace norms_backward {
#include "dora_norm_backward.cu"
}
namespace rescale {
#include "magnitude_rescale.cu"
}
namespace merging {
#include "merge.cu"
}

using bf16 = __nv_bfloat16;
using std::vector;

static void check(cudaError_t e, const char* what) {
    if (e != cudaSuccess) {
        printf("CUDA: %s: %s\n", what, cudaGetErrorString(e));
        exit(1);
    }
}
#define CHECK(x) check((x), #x)

static uint64_t state = 1;
static float uniform() {  // -1 to 1
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return float(int64_t(state) >> 32) * (1.0f / 2147483648.0f);
}

static float host_value(float x) { return x; }
static float host_value(bf16 x) { return __bfloat162float(x); }
template <class T>
static T narrow(float x) {
    if constexpr (sizeof(T) == 4) return x;
    else return __float2bfloat16(x);
}

template <class T>
struct Device {
    T* p = nullptr;
    size_t n = 0;
    Device() = default;
    // Poisoned: NaN in f32 and in bf16.
    explicit Device(size_t n) : n(n) {
        CHECK(cudaMalloc(&p, n * sizeof(T) + 256));
        CHECK(cudaMemset(p, 0xff, n * sizeof(T) + 256));
    }
    explicit Device(const vector<T>& v) : Device(v.size()) {
        CHECK(cudaMemcpy(p, v.data(), n * sizeof(T), cudaMemcpyHostToDevice));
    }
    Device(Device&& o) : p(o.p), n(o.n) { o.p = nullptr; }
    Device& operator=(Device&& o) {
        std::swap(p, o.p), std::swap(n, o.n);
        return *this;
    }
    ~Device() {
        if (p) cudaFree(p);
    }
    uint64_t address() const { return reinterpret_cast<uint64_t>(p); }
    // The values; what lies behind them must be untouched.
    vector<T> get() const {
        vector<T> v(n);
        vector<unsigned char> guard(256);
        CHECK(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
        CHECK(cudaMemcpy(guard.data(), p + n, 256, cudaMemcpyDeviceToHost));
        for (unsigned char byte : guard) {
            if (byte != 0xff) {
                printf("FAIL: wrote beyond the end\n");
                exit(1);
            }
        }
        return v;
    }
};

template <class T>
static vector<T> random_values(size_t n, float size = 1.0f) {
    vector<T> v(n);
    for (auto& x : v) x = narrow<T>(uniform() * size);
    return v;
}

static int failures = 0;
struct Error {
    double worst = 0;  // error over what is allowed
    void add(double got, double truth, double allowed) {
        const double e = std::abs(got - truth) / (allowed + 1e-30);
        if (!(e <= worst)) worst = std::isnan(e) ? 1e30 : e;
    }
    void report(const std::string& what) const {
        const bool ok = worst <= 1;
        if (!ok) ++failures;
        printf("%s %-64s error %.3f of what is allowed\n", ok ? "PASS" : "FAIL", what.c_str(), worst);
    }
};

static unsigned ceil_div(size_t a, size_t b) { return unsigned((a + b - 1) / b); }
static unsigned ceil_to(size_t a, size_t b) { return unsigned((a + b - 1) / b * b); }

// What is in L2 is neither the kernel's nor waits to be written back.
static __global__ void read_all(const uint4* p, size_t n, unsigned* out) {
    unsigned sum = 0;
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x) sum += p[i].x ^ p[i].w;
    if (sum == 12345) *out = sum;
}

static void* flush_buffer;
static double median_us(const std::function<void()>& f) {
    if (!flush_buffer) {
        CHECK(cudaMalloc(&flush_buffer, 192 << 20));
        CHECK(cudaMemset(flush_buffer, 1, 192 << 20));
    }
    cudaEvent_t a, b;
    CHECK(cudaEventCreate(&a));
    CHECK(cudaEventCreate(&b));
    vector<float> times;
    for (int i = 0; i < 23; ++i) {
        read_all<<<1056, 256>>>(static_cast<const uint4*>(flush_buffer), (192 << 20) / 16, static_cast<unsigned*>(flush_buffer));
        CHECK(cudaEventRecord(a));
        f();
        CHECK(cudaEventRecord(b));
        CHECK(cudaEventSynchronize(b));
        float ms;
        CHECK(cudaEventElapsedTime(&ms, a, b));
        if (i >= 3) times.push_back(ms * 1000);
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

struct Place {
    unsigned first_row, rows, rank;
};

// ------------------------------------------------------------------------------------------------------------ lora_gradients

template <class T>
struct Lora {
    unsigned m, k, n, q_columns = 0;
    vector<Place> places;
    vector<T> x, dy;
    vector<vector<T>> t, bg;
    vector<vector<float>> gain;
    Device<T> dx, ddy, dq;
    vector<Device<T>> dt, dbg;
    vector<Device<float>> dgain, dpartial_b, dda, ddb;
    Device<float> dpartial_a;
    PeftkLoraGradientsParams p{};
    // For dg.
    vector<T> y, w;
    vector<float> bias;
    Device<T> dy_of_gain, dw;
    Device<float> dbias;
    vector<Device<float>> dpartial_gain, dgain_out;

    Lora(unsigned m, unsigned k, unsigned n, vector<Place> places) : m(m), k(k), n(n), places(places) {
        x = random_values<T>(size_t(m) * k), dy = random_values<T>(size_t(m) * n);
        dx = Device<T>(x), ddy = Device<T>(dy);
        p.m = m, p.k = k, p.ld_dy = n, p.count = unsigned(places.size());
        p.cut = one_granule(m, std::max(32u, ceil_to(ceil_div(m, 132), 32)));
        for (size_t i = 0; i < places.size(); ++i) {
            const Place at = places[i];
            const unsigned padded = ceil_to(at.rank, 16);
            t.push_back(random_values<T>(size_t(m) * padded)), bg.push_back(random_values<T>(size_t(at.rows) * padded));
            for (size_t j = 0; j < t[i].size(); ++j) {
                if (j % padded >= at.rank) t[i][j] = narrow<T>(0);
            }
            for (size_t j = 0; j < bg[i].size(); ++j) {
                if (j % padded >= at.rank) bg[i][j] = narrow<T>(0);
            }
            gain.push_back(random_values<float>(at.rows));
            dt.emplace_back(t[i]), dbg.emplace_back(bg[i]), dgain.emplace_back(gain[i]);
            dpartial_b.emplace_back(size_t(p.cut.pieces) * padded * at.rows);
            dda.emplace_back(size_t(at.rank) * k), ddb.emplace_back(size_t(at.rows) * at.rank);
            PeftkLoraAdapter& adapter = p.adapters[i];
            adapter.t = dt[i].address(), adapter.bg = dbg[i].address(), adapter.gain = i == 1 ? 0 : dgain[i].address();
            adapter.partial_b = dpartial_b[i].address(), adapter.da = dda[i].address(), adapter.db = ddb[i].address();
            adapter.scale = 0.75f, adapter.first_row = at.first_row, adapter.rows = at.rows;
            adapter.rank = at.rank, adapter.rank_padded = padded, adapter.q_column = q_columns;
            q_columns += padded;
        }
        dq = Device<T>(size_t(m) * q_columns), dpartial_a = Device<float>(size_t(p.cut.pieces) * q_columns * k);
        p.x = dx.address(), p.dy = ddy.address(), p.q = dq.address(), p.partial_a = dpartial_a.address();
        p.ld_q = q_columns, p.q_first = 0, p.q_columns = q_columns, p.slices = q_columns / 16;
    }

    // Every adapter but the second, which has no gain, makes dg too; for up to 1024 rows in bf16. s g B stands for B.
    Lora& with_gain() {
        y = random_values<T>(size_t(m) * n), w = random_values<T>(size_t(n) * k, 0.1f), bias = random_values<float>(n);
        dy_of_gain = Device<T>(y), dw = Device<T>(w), dbias = Device<float>(bias);
        for (size_t i = 0; i < places.size(); ++i) {
            dpartial_gain.emplace_back(size_t(p.cut.pieces) * places[i].rows), dgain_out.emplace_back(places[i].rows);
            if (i == 1) continue;
            PeftkLoraAdapter& adapter = p.adapters[i];
            adapter.y = dy_of_gain.address(), adapter.bias = dbias.address(), adapter.w = dw.address(), adapter.ld_w = k, adapter.b = dbg[i].address();
            adapter.partial_gain = dpartial_gain[i].address(), adapter.dgain = dgain_out[i].address();
        }
        return *this;
    }
    void test_gain() {
        with_gain(), output(), reduce();
        CHECK(cudaDeviceSynchronize());
        Error error;
        for (size_t i = 0; i < places.size(); i += 2) {
            const Place at = places[i];
            const unsigned padded = p.adapters[i].rank_padded;
            const auto got = dgain_out[i].get();
            for (unsigned j = 0; j < at.rows; j += std::max(1u, at.rows / 60)) {
                const double g = gain[i][j], b = bias[at.first_row + j];
                const bool small = std::abs(gain[i][j]) < 1.0f / 64;
                double sum = 0, size = 0;
                for (unsigned token = 0; token < m; ++token) {
                    const double d = host_value(dy[size_t(token) * n + at.first_row + j]), out = host_value(y[size_t(token) * n + at.first_row + j]);
                    double z = (out - b) / g, of = (std::abs(out) + std::abs(b)) / std::abs(g);
                    if (small) {
                        z = of = 0;
                        const auto add = [&](double term) { z += term, of += std::abs(term); };
                        for (unsigned c = 0; c < k; ++c) add(double(host_value(x[size_t(token) * k + c])) * host_value(w[size_t(at.first_row + j) * k + c]));
                        for (unsigned r = 0; r < padded; ++r) {
                            add(0.75 * host_value(t[i][size_t(token) * padded + r]) * host_value(bg[i][size_t(j) * padded + r]));
                        }
                    }
                    sum += d * z, size += std::abs(d) * of;
                }
                error.add(got[j], sum, 4e-6 * size);
            }
        }
        char name[160];
        snprintf(name, sizeof name, "lora_gradients m %u k %u n %u, rows %u rank %u: dg", m, k, n, places[0].rows, places[0].rank);
        error.report(name);
    }

    unsigned most_rows() const {
        unsigned most = 0;
        for (Place at : places) most = std::max(most, at.rows);
        return most;
    }
    unsigned most_rank() const {
        unsigned most = 0;
        for (Place at : places) most = std::max(most, ceil_to(at.rank, 16));
        return most;
    }

    void output() {
        const unsigned rows = most_rows();
        if constexpr (sizeof(T) == 4) {
            lora_f32::lora_gradients_project_f32<<<dim3(ceil_div(m, 64), ceil_div(most_rank(), 32), p.count), 256>>>(p);
            lora_f32::lora_gradients_outer_output_f32<<<dim3(p.cut.pieces, ceil_div(rows, 64), p.count * ceil_div(most_rank(), 32)), 256>>>(p);
        } else {
            const auto bytes = [&](unsigned tokens, unsigned warps) {
                return 3 * tokens * 2 * (ceil_to(rows, 16) + 8 + 24) + warps * 16 * (tokens + 4) * 4;
            };
            const auto launch = [&](auto kernel, dim3 grid, unsigned threads, unsigned shared) {
                CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
                kernel<<<grid, threads, shared>>>(p);
            };
            const dim3 grid(p.slices * p.cut.pieces);
            const unsigned padded = ceil_to(rows, 16), warps = rows <= 384 ? 8 : 16;
            const unsigned dora = 3 * 16 * 2 * (2 * (padded + 8) + 24) + warps * 16 * 20 * 4 + padded * 4;
            if (p.adapters[0].y && rows <= 384) {
                launch(lora_bf16::lora_gradients_output_dora_384_bf16, grid, 256, dora);
            } else if (p.adapters[0].y) {
                launch(lora_bf16::lora_gradients_output_dora_1024_bf16, grid, 512, dora);
            } else if (rows <= 384) {
                launch(lora_bf16::lora_gradients_output_384_bf16, grid, 256, bytes(32, 8));
            } else if (rows <= 1536) {
                launch(lora_bf16::lora_gradients_output_1536_bf16, grid, 512, bytes(16, 16));
            } else {
                launch(lora_bf16::lora_gradients_project_bf16, grid, 256, 76800);
                launch(lora_bf16::lora_gradients_outer_output_bf16, dim3(p.cut.pieces, ceil_div(rows, 384), p.slices), 256,
                       3 * 32 * 2 * (392 + 24));
            }
        }
        CHECK(cudaGetLastError());
    }
    void input() {
        if constexpr (sizeof(T) == 4) {
            lora_f32::lora_gradients_input_f32<<<dim3(p.cut.pieces, ceil_div(k, 64), ceil_div(q_columns, 32)), 256>>>(p);
        } else {
            const unsigned slices = p.slices == 4 ? 2 : std::min(p.slices, 3u);
            const auto kernel = slices == 1   ? lora_bf16::lora_gradients_input_16_bf16
                                : slices == 2 ? lora_bf16::lora_gradients_input_32_bf16
                                              : lora_bf16::lora_gradients_input_48_bf16;
            const unsigned shared = 3 * 32 * 2 * (392 + slices * 16 + 8);
            CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
            kernel<<<dim3(p.cut.pieces, ceil_div(k, 384), ceil_div(p.slices, slices)), 256, shared>>>(p);
        }
        CHECK(cudaGetLastError());
    }
    void reduce() {
        size_t most = 0;
        for (Place at : places) most = std::max({most, size_t(at.rank) * k, size_t(at.rank) * at.rows});
        lora_bf16::lora_gradients_reduce<<<dim3(ceil_div(most, 32), 3 * p.count), 256>>>(p);
        CHECK(cudaGetLastError());
    }

    void test() {
        output(), input(), reduce();
        CHECK(cudaDeviceSynchronize());
        const auto q = dq.get();
        Error in_q, in_a, in_b;
        const bool all = size_t(m) * k < 300000 && size_t(m) * n < 300000;
        bool repeated = true;
        for (size_t i = 0; i < places.size(); ++i) {
            const Place at = places[i];
            const unsigned padded = p.adapters[i].rank_padded, column = p.adapters[i].q_column;
            const unsigned step = all ? 1 : std::max(1u, m / 53);
            for (unsigned token = 0; token < m; token += step) {
                for (unsigned r = 0; r < padded; ++r) {
                    double sum = 0, size = 0;
                    for (unsigned j = 0; j < at.rows; ++j) {
                        const double term = double(host_value(dy[size_t(token) * n + at.first_row + j])) * host_value(bg[i][size_t(j) * padded + r]);
                        sum += term, size += std::abs(term);
                    }
                    in_q.add(host_value(q[size_t(token) * q_columns + column + r]), sum,
                             (sizeof(T) == 2 ? std::abs(sum) / 256 : 0) + 4e-6 * size);
                }
            }
            const auto da = dda[i].get(), db = ddb[i].get();
            const unsigned step_r = all ? 1 : std::max(1u, at.rank / 2), step_k = all ? 1 : std::max(1u, k / 9);
            for (unsigned r = 0; r < at.rank; r += step_r) {
                for (unsigned c = 0; c < k; c += step_k) {
                    double sum = 0, size = 0;
                    for (unsigned token = 0; token < m; ++token) {
                        const double term = double(host_value(q[size_t(token) * q_columns + column + r])) * host_value(x[size_t(token) * k + c]);
                        sum += term, size += std::abs(term);
                    }
                    in_a.add(da[size_t(r) * k + c], sum, 4e-6 * size);
                }
                for (unsigned j = 0; j < at.rows; j += all ? 1 : std::max(1u, at.rows / 9)) {
                    double sum = 0, size = 0;
                    for (unsigned token = 0; token < m; ++token) {
                        const double term =
                            double(host_value(dy[size_t(token) * n + at.first_row + j])) * host_value(t[i][size_t(token) * padded + r]);
                        sum += term, size += std::abs(term);
                    }
                    const double factor = 0.75 * (i == 1 ? 1.0 : double(gain[i][j]));
                    in_b.add(db[size_t(j) * at.rank + r], factor * sum, 4e-6 * std::abs(factor) * size);
                }
            }
            output(), input(), reduce();
            CHECK(cudaDeviceSynchronize());
            const auto da2 = dda[i].get(), db2 = ddb[i].get();
            repeated = repeated && !memcmp(da.data(), da2.data(), da.size() * 4) && !memcmp(db.data(), db2.data(), db.size() * 4);
        }
        char name[200];
        snprintf(name, sizeof name, "lora_gradients %s m %u k %u n %u, %zu adapters, rows %u rank %u", sizeof(T) == 2 ? "bf16" : "f32", m, k,
                 n, places.size(), places[0].rows, places[0].rank);
        in_q.report(std::string(name) + ": Q"), in_a.report(std::string(name) + ": dA"), in_b.report(std::string(name) + ": dB");
        if (!repeated) printf("FAIL %s: other bits the second time\n", name), ++failures;
    }
    void time() {
        double bytes = 0;
        for (Place at : places) bytes += double(m) * at.rows * sizeof(T);
        if (p.adapters[0].y) bytes *= 2, printf("with dg, ");
        const double t_out = median_us([&] { output(); }), t_in = median_us([&] { input(); }), t_reduce = median_us([&] { reduce(); });
        const double all = median_us([&] { output(), input(), reduce(); });
        const double total = bytes + double(m) * k * sizeof(T);
        printf("TIME lora_gradients %s m %u k %u n %u, %zu of %u rows, rank %u: output %.1f us (%.0f GB/s of dy), input %.1f us (%.0f "
               "GB/s of x), reduce %.1f us, together %.1f us, floor %.1f us\n",
               sizeof(T) == 2 ? "bf16" : "f32", m, k, n, places.size(), places[0].rows, places[0].rank, t_out, bytes / t_out / 1e3, t_in,
               double(m) * k * sizeof(T) / t_in / 1e3, t_reduce, all, total / 2.96e6);
    }
};

// ------------------------------------------------------------------------------------------------- DoRA's norm, gain, merging

struct Linear {
    Place at;
    unsigned k;
    float scale = 1.5f;
    vector<float> w, a, b, magnitude, gain;
    Device<float> dw, da, db, dmagnitude, dgain, norm, gain_out, out;
    Device<bf16> out_half;
    Linear(unsigned rows, unsigned k, unsigned rank) : at{0, rows, rank}, k(k) {
        w = random_values<float>(size_t(rows) * k), a = random_values<float>(size_t(rank) * k), b = random_values<float>(size_t(rows) * rank, 0.3f);
        magnitude = random_values<float>(rows), gain = random_values<float>(rows);
        dw = Device<float>(w), da = Device<float>(a), db = Device<float>(b), dmagnitude = Device<float>(magnitude), dgain = Device<float>(gain);
        norm = Device<float>(rows), gain_out = Device<float>(rows), out = Device<float>(size_t(rows) * k), out_half = Device<bf16>(size_t(rows) * k);
    }
    double v(unsigned j, unsigned c, double* size = nullptr) const {
        double sum = 0, total = std::abs(w[size_t(j) * k + c]);
        for (unsigned r = 0; r < at.rank; ++r) {
            const double term = double(b[size_t(j) * at.rank + r]) * a[size_t(r) * k + c];
            sum += term, total += scale * std::abs(term);
        }
        if (size) *size = total;
        return w[size_t(j) * k + c] + scale * sum;
    }
    double true_norm(unsigned j, double* size = nullptr) const {
        double sum = 0, total = 0;
        for (unsigned c = 0; c < k; ++c) {
            double s;
            const double value = v(j, c, &s);
            sum += value * value, total += s * s;
        }
        if (size) *size = std::sqrt(total);
        return std::sqrt(sum);
    }
    PeftkDoraNormItem norm_item() const {
        return {dw.address(), da.address(), db.address(), norm.address(), dmagnitude.address(), gain_out.address(), scale, at.rows, k, at.rank, 0, 0};
    }
    PeftkMergeItem merge_item(bool to_f32) const {
        return {dw.address(), da.address(), db.address(), dgain.address(), dmagnitude.address(), to_f32 ? out.address() : 0, out_half.address(), scale,
                at.rows,      k,            at.rank,      0,               k <= 384 ? 16u : k <= 768 ? 8u : k <= 1536 ? 4u : 16u};
    }
};

// Launches of up to 48 items each, which stand in the parameters.
template <class Params, class Item, class Launch>
static void in_launches(const vector<Item>& items, unsigned (*block_rows)(const Item&), Launch launch) {
    for (size_t from = 0; from < items.size(); from += 48) {
        Params p{};
        unsigned blocks = 0;
        for (; p.count < 48 && from + p.count < items.size(); ++p.count) {
            Item& item = p.items[p.count] = items[from + p.count];
            item.first_block = blocks;
            blocks += ceil_div(item.rows, block_rows(item));
        }
        launch(p, dim3(blocks));
    }
    CHECK(cudaGetLastError());
}

template <class I>
static Device<I> upload(const vector<I>& items) {
    return Device<I>(items);
}

static void test_norms(const vector<Linear>& all, const std::string& what, bool time) {
    vector<PeftkDoraNormItem> items;
    vector<PeftkMergeItem> merges;
    double bytes = 0;
    for (const Linear& l : all) {
        items.push_back(l.norm_item()), merges.push_back(l.merge_item(!time));
        bytes += 4.0 * l.at.rows * l.k;
    }
    const auto make_norms = [&] {
        in_launches<PeftkDoraNormBatchParams, PeftkDoraNormItem>(
            items, [](const PeftkDoraNormItem&) { return 16u; }, [](const auto& p, dim3 grid) { norms::dora_norm_batched_f32<<<grid, 128>>>(p); });
    };
    const auto merge = [&](auto kernel) {
        in_launches<PeftkMergeParams, PeftkMergeItem>(
            merges, [](const PeftkMergeItem& item) { return item.block_rows; }, [&](const auto& p, dim3 grid) { kernel<<<grid, 128>>>(p); });
    };
    if (time) {
        const double tn = median_us(make_norms), tm = median_us([&] { merge(merging::merge_f32); });
        const double td = median_us([&] { merge(merging::merge_dora_f32); });
        printf("TIME %s: norm %.1f us (%.0f GB/s), merge to bf16 %.1f us (%.0f GB/s), norm + merge %.1f us (%.0f GB/s), floor %.1f\n",
               what.c_str(), tn, bytes / tn / 1e3, tm, 1.5 * bytes / tm / 1e3, td, 1.5 * bytes / td / 1e3, 1.5 * bytes / 2.96e6);
        return;
    }
    for (int pass = 0; pass < 3; ++pass) {
        Error in_norm, in_gain, in_out, in_half;
        if (pass == 0) make_norms();
        if (pass == 1) merge(merging::merge_f32);
        if (pass == 2) merge(merging::merge_dora_f32);
        CHECK(cudaDeviceSynchronize());
        for (const Linear& l : all) {
            const auto norm = l.norm.get(), gain = l.gain_out.get(), out = l.out.get();
            const auto half = l.out_half.get();
            for (unsigned j = 0; j < l.at.rows; j += std::max(1u, l.at.rows / 40)) {
                double size;
                const double n = l.true_norm(j, &size), g = pass == 1 ? double(l.gain[j]) : l.magnitude[j] / n;
                if (pass == 0) in_norm.add(norm[j], n, 1e-6 * size), in_gain.add(gain[j], g, 1e-6 * std::abs(g) * size / n);
                for (unsigned c = 0; pass > 0 && c < l.k; ++c) {
                    const double v = g * l.v(j, c, &size);
                    in_out.add(out[size_t(j) * l.k + c], v, 2e-6 * std::abs(g) * size);
                    in_half.add(host_value(half[size_t(j) * l.k + c]), v, std::abs(v) / 256 + 2e-6 * std::abs(g) * size);
                }
            }
        }
        const char* names[] = {"dora_norm_batched_f32 ", "merge_f32 ", "merge_dora_f32 "};
        if (pass == 0) in_norm.report(names[pass] + what + ": norm"), in_gain.report(names[pass] + what + ": gain");
        if (pass > 0) in_out.report(names[pass] + what + ": f32"), in_half.report(names[pass] + what + ": bf16");
    }
    // The entry for one adapter must agree bit for bit.
    const Linear& l = all[0];
    const auto batched = l.norm.get();
    CHECK(cudaMemset(l.norm.p, 0xff, l.norm.n * 4));
    norms::dora_norm_f32<<<ceil_div(l.at.rows, 16), 128>>>(
        PeftkDoraNormParams{l.dw.address(), l.da.address(), l.db.address(), l.norm.address(), l.scale, l.at.rows, l.k, l.at.rank});
    const auto single = l.norm.get();
    if (memcmp(batched.data(), single.data(), single.size() * 4)) printf("FAIL dora_norm_f32 against the batch\n"), ++failures;
}

static void test_norm_backward(unsigned rows, unsigned k, unsigned rank, bool accumulate, unsigned copies = 0) {
    const Linear l(rows, k, rank);
    vector<float> norm(rows);
    for (unsigned j = 0; j < rows; ++j) norm[j] = float(l.true_norm(j));
    const auto dnorm = random_values<float>(rows), da0 = random_values<float>(size_t(rank) * k), db0 = random_values<float>(size_t(rows) * rank);
    const Device<float> n(norm), dn(dnorm), pa(size_t(ceil_div(rows, 32)) * rank * k), pb(size_t(ceil_div(k, 128)) * rows * rank);
    Device<float> da(size_t(rank) * k), db(size_t(rows) * rank);
    if (accumulate) da = Device<float>(da0), db = Device<float>(db0);
    PeftkDoraNormBackwardParams p{};
    p.item = {l.dw.address(), l.da.address(), l.db.address(), n.address(), dn.address(), pa.address(), pb.address(), da.address(), db.address(),
              l.scale, rows, k, rank, accumulate, 0};
    const auto launch = [&](unsigned z) {
        norms_backward::dora_norm_backward_f32<<<dim3(ceil_div(k, 128), ceil_div(rows, 32), z), 128>>>(p);
        norms_backward::dora_norm_backward_reduce_f32<<<dim3(ceil_div(size_t(rank) * (rows + k), 256), 1, z), 256>>>(p);
        CHECK(cudaGetLastError());
    };
    if (copies) {
        // Every copy writes the same values to the same place: the time of a batch.
        const vector<PeftkDoraNormBackwardItem> items(copies, p.item);
        const auto device = upload(items);
        p.items = device.address();
        printf("TIME dora_norm_backward_f32 %u of %ux%u r%u: %.1f us\n", copies, rows, k, rank, median_us([&] { launch(copies); }));
        return;
    }
    launch(1);
    const auto ga = da.get(), gb = db.get();
    vector<double> ta(ga.size()), sa(ga.size());
    Error in_a, in_b;
    for (unsigned j = 0; j < rows; ++j) {
        vector<double> v(k), size(k);
        for (unsigned c = 0; c < k; ++c) v[c] = l.v(j, c, &size[c]);
        const double f = l.scale * double(dnorm[j]) / norm[j];
        for (unsigned r = 0; r < rank; ++r) {
            double sum = 0, total = 0;
            const double b = l.b[size_t(j) * rank + r];
            for (unsigned c = 0; c < k; ++c) {
                sum += f * v[c] * l.a[size_t(r) * k + c], total += std::abs(f * size[c] * l.a[size_t(r) * k + c]);
                ta[size_t(r) * k + c] += b * f * v[c], sa[size_t(r) * k + c] += std::abs(b * f * size[c]);
            }
            in_b.add(gb[size_t(j) * rank + r], sum + (accumulate ? db0[size_t(j) * rank + r] : 0), 1e-6 * (total + 1));
        }
    }
    for (size_t i = 0; i < ga.size(); ++i) in_a.add(ga[i], ta[i] + (accumulate ? da0[i] : 0), 1e-6 * (sa[i] + 1));
    char name[120];
    snprintf(name, sizeof name, "dora_norm_backward_f32 %ux%u r%u%s", rows, k, rank, accumulate ? ", added" : "");
    in_a.report(std::string(name) + ": dA"), in_b.report(std::string(name) + ": dB");
}

static void test_rescale(size_t count) {
    auto m = random_values<float>(count), n = random_values<float>(count), dg = random_values<float>(count);
    for (auto& x : n) x = std::abs(x) + 0.1f;
    const Device<float> dm(m), dn(n), ddg(dg), om(count), on(count);
    PeftkMagnitudeBackwardParams p{};
    p.items[0] = {dm.address(), dn.address(), ddg.address(), om.address(), on.address(), unsigned(count), 0};
    rescale::magnitude_rescale_backward_f32<<<ceil_div(count, 256), 256>>>(p);
    const auto gm = om.get(), gn = on.get();
    Error error;
    for (size_t i = 0; i < count; ++i) {
        const double truth = double(m[i]) / n[i], a = double(dg[i]) / n[i], b = -a * truth;
        error.add(gm[i], a, 1e-7 * std::abs(a)), error.add(gn[i], b, 3e-7 * std::abs(b));
    }
    error.report("magnitude_rescale_backward " + std::to_string(count));
}

template <class T>
static void test_magnitude_gradient(unsigned m, unsigned k, unsigned n, Place at, bool time) {
    const unsigned padded = ceil_to(at.rank, 16);
    const float scale = 1.25f;
    const auto x = random_values<T>(size_t(m) * k), w = random_values<T>(size_t(n) * k, 0.1f), dy = random_values<T>(size_t(m) * n);
    auto t = random_values<T>(size_t(m) * padded), b = random_values<T>(size_t(at.rows) * padded);
    const auto bias = random_values<float>(n);
    auto gain = random_values<float>(at.rows);
    for (auto& g : gain) g = 1.0f + 0.5f * g;
    if (!time) {
        gain[0] = 0.0f;
        if (at.rows > 3) gain[at.rows - 1] = 1e-3f, gain[2] = -1.0f;
    }
    vector<T> y = random_values<T>(size_t(m) * n);
    const unsigned step = time ? at.rows : std::max(1u, (at.rows - 1) / 6);
    vector<unsigned> sampled;
    for (unsigned j = 0; j < at.rows && !time; j += step) sampled.push_back(j);
    vector<double> truth, size;
    for (unsigned j : sampled) {
        double sum = 0, total = 0;
        for (unsigned i = 0; i < m; ++i) {
            double z = 0, low = 0;
            for (unsigned c = 0; c < k; ++c) z += double(host_value(x[size_t(i) * k + c])) * host_value(w[size_t(at.first_row + j) * k + c]);
            for (unsigned r = 0; r < padded; ++r) low += double(host_value(t[size_t(i) * padded + r])) * host_value(b[size_t(j) * padded + r]);
            z += scale * low;
            const T rounded = narrow<T>(float(gain[j] * z + bias[at.first_row + j]));
            y[size_t(i) * n + at.first_row + j] = rounded;
            const double d = host_value(dy[size_t(i) * n + at.first_row + j]);
            // Truth from the y that the kernel sees, or from x where the gain is small.
            const double used = std::abs(gain[j]) < 1.0f / 64 ? z : (host_value(rounded) - double(bias[at.first_row + j])) / gain[j];
            sum += d * used, total += std::abs(d) * (std::abs(z) + std::abs(bias[at.first_row + j] / std::max(0.1f, std::abs(gain[j]))));
        }
        truth.push_back(sum), size.push_back(total);
    }
    const PeftkCut cut = one_granule(m, std::max(32u, ceil_to(ceil_div(m, 132), 32)));
    const Device<T> dx(x), dw(w), ddy(dy), dt(t), db(b), dyy(y);
    const Device<float> dbias(bias), dgain(gain), partial(size_t(cut.pieces) * at.rows), out(at.rows);
    const PeftkMagnitudeGradientParams p{ddy.address(), dyy.address(), dbias.address(), dgain.address(), dx.address(), dw.address(), dt.address(),
                                         db.address(), partial.address(), out.address(), scale, m, k, n, n, at.first_row, at.first_row, at.rows, padded, k, cut};
    const auto launch = [&] {
        const dim3 grid(ceil_div(at.rows, 64), cut.pieces);
        if constexpr (sizeof(T) == 4) rescale::magnitude_gradient_f32<<<grid, 256>>>(p);
        else rescale::magnitude_gradient_bf16<<<grid, 256>>>(p);
        rescale::magnitude_gradient_reduce<<<ceil_div(at.rows, 32), 256>>>(p);
        CHECK(cudaGetLastError());
    };
    char name[160];
    snprintf(name, sizeof name, "magnitude_gradient %s m %u k %u n %u rows %u", sizeof(T) == 2 ? "bf16" : "f32", m, k, n, at.rows);
    if (time) {
        const double us = median_us(launch), bytes = 2.0 * m * at.rows * sizeof(T);
        printf("TIME %s: %.1f us, %.0f GB/s, floor %.1f us\n", name, us, bytes / us / 1e3, bytes / 2.96e6);
        return;
    }
    launch();
    const auto got = out.get();
    Error error;
    for (size_t i = 0; i < sampled.size(); ++i) error.add(got[sampled[i]], truth[i], 4e-6 * size[i]);
    error.report(name);
}

// ------------------------------------------------------------------------------------------------------------------- packing

template <class T>
static void test_pack(vector<std::array<unsigned, 3>> sizes, bool table) {
    struct One {
        vector<float> a, b, g;
        Device<float> da, db, dg;
        Device<T> pa, pj, pb, pg;
    };
    vector<One> all;
    PeftkAdapterPackParams p{};
    vector<PeftkAdapterPackItem> items;
    for (size_t i = 0; i < sizes.size(); ++i) {
        const auto [rows, k, rank] = sizes[i];
        const unsigned padded = ceil_to(rank, 16);
        One one{random_values<float>(size_t(rank) * k), random_values<float>(size_t(rows) * rank), random_values<float>(rows)};
        one.da = Device<float>(one.a), one.db = Device<float>(one.b), one.dg = Device<float>(one.g);
        one.pa = Device<T>(size_t(padded) * k), one.pj = Device<T>(size_t(padded) * k), one.pb = Device<T>(size_t(rows) * padded), one.pg = Device<T>(size_t(rows) * padded);
        items.push_back({one.da.address(), one.db.address(), i == 1 ? 0 : one.dg.address(), one.pa.address(), one.pj.address(), one.pb.address(), one.pg.address(),
                         1.5f, rows, k, rank, padded, 0});
        all.push_back(std::move(one));
    }
    const auto device = upload(items);
    if (table) p.items = device.address();
    else std::copy(items.begin(), items.end(), p.adapters);
    if constexpr (sizeof(T) == 4) packing::adapter_pack_f32<<<dim3(7, unsigned(items.size())), 256>>>(p);
    else packing::adapter_pack_bf16<<<dim3(7, unsigned(items.size())), 256>>>(p);
    CHECK(cudaGetLastError());
    Error error;
    for (size_t i = 0; i < sizes.size(); ++i) {
        const auto [rows, k, rank] = sizes[i];
        const unsigned padded = ceil_to(rank, 16);
        const auto pa = all[i].pa.get(), pj = all[i].pj.get(), pb = all[i].pb.get(), pg = all[i].pg.get();
        for (unsigned r = 0; r < padded; ++r) {
            for (unsigned c = 0; c < k; ++c) {
                error.add(host_value(pj[size_t(r) * k + c]), host_value(pa[size_t(r) * k + c]), 0);
                error.add(host_value(pa[size_t(r) * k + c]), r < rank ? host_value(narrow<T>(all[i].a[size_t(r) * k + c])) : 0.0f, 0);
            }
            for (unsigned j = 0; j < rows; ++j) {
                const float b = r < rank ? all[i].b[size_t(j) * rank + r] : 0.0f, g = 1.5f * (i == 1 ? 1.0f : all[i].g[j]);
                error.add(host_value(pb[size_t(j) * padded + r]), host_value(narrow<T>(b)), 0);
                error.add(host_value(pg[size_t(j) * padded + r]), host_value(narrow<T>(g * b)), 0);
            }
        }
    }
    error.report(std::string("adapter_pack ") + (sizeof(T) == 2 ? "bf16" : "f32") + (table ? ", table" : ""));
}

template <class In, class Out>
static void test_weight_rescale(unsigned n, unsigned k, vector<Place> places) {
    const auto w = random_values<In>(size_t(n) * k);
    const Device<In> dw(w);
    const Device<Out> out(size_t(n) * k);
    PeftkWeightRescaleParams p{};
    p.item.w = dw.address(), p.item.out = out.address(), p.item.n = n, p.item.k = k;
    vector<vector<float>> gains;
    vector<Device<float>> dgains;
    for (size_t i = 0; i < places.size(); ++i) {
        gains.push_back(random_values<float>(places[i].rows)), dgains.emplace_back(gains[i]);
        p.item.gain[i] = dgains[i].address(), p.item.first_row[i] = places[i].first_row, p.item.rows[i] = places[i].rows;
    }
    const auto launch = [&] {
        const unsigned blocks = ceil_div(n, 8);
        if constexpr (sizeof(In) == 2) packing::weight_rescale_bf16<<<blocks, 256>>>(p);
        else if constexpr (sizeof(Out) == 2) packing::weight_rescale_f32_bf16<<<blocks, 256>>>(p);
        else packing::weight_rescale_f32<<<blocks, 256>>>(p);
        CHECK(cudaGetLastError());
    };
    launch();
    const auto got = out.get();
    Error error;
    for (unsigned j = 0; j < n; ++j) {
        float g = 1;
        for (size_t i = 0; i < places.size(); ++i) {
            if (j >= places[i].first_row && j < places[i].first_row + places[i].rows) g = gains[i][j - places[i].first_row];
        }
        for (unsigned c = 0; c < k; ++c) {
            error.add(host_value(got[size_t(j) * k + c]), host_value(narrow<Out>(g * host_value(w[size_t(j) * k + c]))), 0);
        }
    }
    char name[120];
    snprintf(name, sizeof name, "weight_rescale %zu to %zu bytes, %ux%u", sizeof(In), sizeof(Out), n, k);
    error.report(name);
}

int main() {
    state = uint64_t(time(nullptr)) * 0x9e3779b97f4a7c15ull | 1;
    printf("seed %llu\n", (unsigned long long)state);
    const struct {
        unsigned m, k, n;
        vector<Place> places;
    } shapes[] = {{65792, 384, 1152, {{0, 384, 8}, {768, 384, 8}}},
                  {4112, 768, 768, {{0, 768, 16}}},
                  {2056, 384, 1536, {{0, 1536, 8}}},
                  {514, 1024, 4096, {{0, 4096, 32}}},
                  {771, 1536, 384, {{0, 384, 64}}},
                  {1, 1, 1, {{0, 1, 1}}},
                  {2, 3, 2, {{1, 1, 1}}},
                  {33, 7, 5, {{0, 2, 1}, {3, 2, 3}}},
                  {31, 16, 24, {{8, 16, 3}}},
                  {257, 130, 200, {{5, 100, 17}, {110, 77, 40}, {190, 3, 1}}},
                  {65, 385, 390, {{3, 386, 3}}},
                  {100, 400, 1000, {{8, 392, 33}, {400, 600, 5}}},
                  {31, 17, 1601, {{1, 1600, 5}}},
                  {1000, 40, 2000, {{0, 1544, 20}, {1544, 24, 1}}},
                  {4300, 9, 11, {{0, 11, 2}}}};
    for (const auto& s : shapes) {
        Lora<bf16>(s.m, s.k, s.n, s.places).test();
        if (s.m < 10000 && Lora<bf16>(s.m, s.k, s.n, s.places).most_rows() <= 1024) Lora<bf16>(s.m, s.k, s.n, s.places).test_gain();
        Lora<float>(std::min(s.m, 4112u), s.k, s.n, s.places).test();
    }
    {
        vector<Linear> some;
        const unsigned sizes[][3] = {{384, 384, 8},  {1536, 384, 16}, {384, 1536, 8}, {1, 1, 1},     {5, 3, 3},     {9, 129, 9},
                                     {17, 130, 256}, {31, 33, 32},    {64, 257, 12},  {129, 385, 127}, {3, 1000, 1}, {8, 512, 5}};
        for (const auto& s : sizes) some.emplace_back(s[0], s[1], s[2]);
        test_norms(some, "12 shapes", false);
    }
    const unsigned backward[][3] = {{384, 384, 8}, {1536, 384, 16}, {384, 1536, 8}, {1, 1, 1},   {5, 3, 3},      {33, 129, 9},
                                    {17, 130, 256}, {31, 33, 32},   {64, 257, 33},  {100, 385, 127}, {3, 1000, 1}};
    for (const auto& s : backward) test_norm_backward(s[0], s[1], s[2], s[2] % 2);
    for (size_t n : {1, 384, 1001}) test_rescale(n);
    test_magnitude_gradient<bf16>(2056, 384, 1152, {768, 384, 8}, false);
    test_magnitude_gradient<float>(2056, 384, 1152, {768, 384, 8}, false);
    const struct {
        unsigned m, k, n;
        Place at;
    } odd[] = {{1, 1, 1, {0, 1, 1}}, {33, 7, 5, {2, 3, 2}}, {257, 130, 200, {5, 100, 17}}, {65, 16, 130, {8, 72, 3}}, {1000, 40, 67, {0, 65, 20}}};
    for (const auto& s : odd) {
        test_magnitude_gradient<bf16>(s.m, s.k, s.n, s.at, false);
        test_magnitude_gradient<float>(s.m, s.k, s.n, s.at, false);
    }
    const vector<std::array<unsigned, 3>> three = {{384, 384, 8}, {7, 5, 17}, {1, 1, 1}};
    const vector<std::array<unsigned, 3>> many = {{384, 384, 8}, {7, 5, 17}, {1, 1, 1}, {1536, 384, 32}, {33, 129, 100}};
    test_pack<bf16>(three, false), test_pack<float>(three, false), test_pack<bf16>(many, true), test_pack<float>(many, true);
    for (const auto& [n, k, places] : {std::tuple<unsigned, unsigned, vector<Place>>{1152, 384, {{0, 384, 8}, {768, 384, 8}}},
                                       {10, 7, {{2, 3, 1}, {5, 1, 1}, {9, 1, 1}}},
                                       {1, 1, {}},
                                       {33, 130, {{0, 33, 1}}}}) {
        test_weight_rescale<bf16, bf16>(n, k, places), test_weight_rescale<float, bf16>(n, k, places), test_weight_rescale<float, float>(n, k, places);
    }

    Lora<bf16>(65792, 384, 1152, {{0, 384, 8}, {768, 384, 8}}).time();
    Lora<bf16>(65792, 384, 1152, {{0, 384, 8}, {384, 1, 1}, {768, 384, 8}}).with_gain().time();
    Lora<bf16>(65792, 384, 384, {{0, 384, 8}}).time();
    Lora<bf16>(65792, 384, 384, {{0, 384, 8}}).with_gain().time();
    Lora<bf16>(65792, 384, 384, {{0, 384, 32}}).time();
    Lora<bf16>(65792, 384, 1536, {{0, 1536, 16}}).time();
    Lora<bf16>(65792, 1536, 384, {{0, 384, 16}}).time();
    Lora<bf16>(16448, 384, 1152, {{0, 384, 8}, {768, 384, 8}}).time();
    Lora<bf16>(16448, 768, 2304, {{0, 768, 8}, {1536, 768, 8}}).time();
    Lora<bf16>(16448, 1024, 4096, {{0, 4096, 16}}).time();
    Lora<float>(16448, 384, 1152, {{0, 384, 8}, {768, 384, 8}}).time();
    test_magnitude_gradient<bf16>(65792, 384, 1152, {768, 384, 8}, true);
    {
        vector<Linear> all;
        for (int block = 0; block < 12; ++block) {
            for (int i = 0; i < 4; ++i) all.emplace_back(384, 384, 8);
            all.emplace_back(1536, 384, 8), all.emplace_back(384, 1536, 8);
        }
        test_norms(all, "all linears of ViT-S r8", true);
    }
    {
        vector<Linear> all;
        for (int block = 0; block < 12; ++block) {
            for (int i = 0; i < 4; ++i) all.emplace_back(384, 384, 16);
            all.emplace_back(1536, 384, 16), all.emplace_back(384, 1536, 16);
        }
        test_norms(all, "all linears of ViT-S r16", true);
    }
    {
        vector<Linear> all;
        for (int i = 0; i < 24; ++i) all.emplace_back(384, 384, 8);
        test_norms(all, "q, v of ViT-S r8", true);
    }
    test_norm_backward(384, 384, 8, false, 1);
    test_norm_backward(384, 384, 8, false, 24);
    printf(failures ? "FAIL: %d checks\n" : "PASS: all checks\n", failures);
    return failures != 0;
}
