// The memory-bound kernels of a training step, checked against double loops and timed.
//
//     nvcc -std=c++17 -O3 -gencode=arch=compute_90a,code=sm_90a -Ikernels tools/lab/pointwise.cu -o pointwise -lcuda && ./pointwise
//
// Ladder (H100 80GB, nvcc 13.0; cudaMemcpy of f32 [65792, 384] 71.5 us, 2828 GB/s; of bf16 38.1 us; residual stream f32, T bf16)
//     step                                                        predicted        measured
//     LayerNorm: a row in a warp's registers, 4 columns a load    85% of copy      forward 55.8 us, 96%; dx 88.4 us, 101%
//       bf16 stream [65792, 384], [65792, 1536]                   85%              42.7 us, 84%; 175 us, 82%
//       wide rows: warps' moments combined, 1 synchronisation     90% at 1536      68 to 95% (bf16, f32)
//       40 or 48 registers for more rows under way                                 spills: dropped
//     GELU by a fitted erfc, not erff: 2 special functions, 12 fma  90%            39.1 us, 91%; [65792, 1536] 101%
//     sums over rows in granules of 128, second stage apart       85%              22.6 us, 79%; [65792, 1536] 98%
//       second stage, 32 columns x 32 slices a block              5 us             14.7 us at [2056, 768]
//       8 columns x 128 slices                                    5 us             7.2 us
//     patches, 8 neighbouring columns a lane                      80%              95 us, 43%: a load touches 18 rows of pixels
//       2 columns a lane, 64 apart                                45 us            93 us: not that, then
//     AdamW, all tensors in one launch                            90%              233 us for 22 M values, 100%
//     positions, a thread a column, 1369 terms in a row           50 us            133 us
//       8 slices of the sum                                       20 us            87 us forward, 65 us backward

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "cut.cuh"
#include "../../kernels/adamw.cu"
#include "../../kernels/column_sum.cu"
#include "../../kernels/elementwise.cu"
#include "../../kernels/gelu.cu"
#include "../../kernels/layer_norm.cu"
#include "../../kernels/layer_scale.cu"
#include "../../kernels/loss.cu"
#include "../../kernels/patches.cu"
#include "../../kernels/pool.cu"
#include "../../kernels/positions.cu"
#include "../../kernels/swiglu.cu"
#include "../../kernels/tokens.cu"

#define CUDA(call)                                                                             \
    do {                                                                                       \
        const cudaError_t error = (call);                                                      \
        if (error != cudaSuccess) {                                                            \
            std::printf("line %d: %s: %s\n", __LINE__, #call, cudaGetErrorString(error));      \
            std::exit(1);                                                                      \
        }                                                                                      \
    } while (0)

using Doubles = std::vector<double>;
enum Type { F32, BF16 };

static std::mt19937_64 generator(std::random_device{}());
static double uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(generator); }

static uint16_t to_bf16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
static float from_bf16(uint16_t bits) {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return value;
}

// Device memory with poison behind it, and for inputs the values as the device has them.
struct Buf {
    static constexpr size_t kGuard = 256;
    Type type;
    size_t count;
    unsigned char* device = nullptr;
    Doubles host;

    Buf(Type type, size_t count) : type(type), count(count) {
        CUDA(cudaMalloc(&device, bytes() + kGuard));
        CUDA(cudaMemset(device, 0xff, bytes() + kGuard));
    }
    Buf(Type type, const std::vector<float>& values) : Buf(type, values.size()) { set(values); }
    Buf(Buf&& other) : type(other.type), count(other.count), device(other.device), host(std::move(other.host)) {
        other.device = nullptr;
    }
    ~Buf() { cudaFree(device); }

    size_t bytes() const { return count * (type == F32 ? 4 : 2); }
    uint64_t at(size_t element = 0) const { return reinterpret_cast<uint64_t>(device) + element * (type == F32 ? 4 : 2); }
    void set(const std::vector<float>& values) {
        std::vector<uint16_t> halves;
        host.assign(values.begin(), values.end());
        if (type == BF16) {
            for (size_t i = 0; i < count; ++i) {
                halves.push_back(to_bf16(values[i]));
                host[i] = from_bf16(halves[i]);
            }
        }
        CUDA(cudaMemcpy(device, type == F32 ? (const void*)values.data() : (const void*)halves.data(), bytes(), cudaMemcpyHostToDevice));
    }
    Doubles read() const {
        std::vector<unsigned char> raw(bytes() + kGuard);
        CUDA(cudaGetLastError());
        CUDA(cudaDeviceSynchronize());
        CUDA(cudaMemcpy(raw.data(), device, raw.size(), cudaMemcpyDeviceToHost));
        for (size_t i = bytes(); i < raw.size(); ++i) {
            if (raw[i] != 0xff) {
                std::printf("FAIL: a write beyond the end\n");
                std::exit(1);
            }
        }
        Doubles values(count);
        for (size_t i = 0; i < count; ++i) {
            if (type == F32) {
                float value;
                std::memcpy(&value, &raw[4 * i], 4);
                values[i] = value;
            } else {
                uint16_t value;
                std::memcpy(&value, &raw[2 * i], 2);
                values[i] = from_bf16(value);
            }
        }
        return values;
    }
};

static Buf random_buf(Type type, size_t count, double low = -2, double high = 2) {
    std::vector<float> values(count);
    for (float& value : values) value = static_cast<float>(uniform(low, high));
    return Buf(type, values);
}

// The worst error of each entry, in units of what is allowed: `allowed` plus 2^-8 of the value for a bf16 result.
struct Score {
    double worst = 0, error = 0;
    size_t values = 0;
};
static std::map<std::string, Score> scores;

static void check(const std::string& name, const Doubles& ours, const Doubles& truth, const std::function<double(size_t)>& allowed,
                  Type type = F32) {
    Score& score = scores[name];
    if (ours.size() != truth.size()) score.worst = INFINITY;
    for (size_t i = 0; i < truth.size(); ++i) {
        const double error = std::fabs(ours[i] - truth[i]);
        const double limit = allowed(i) + (type == BF16 ? std::fabs(truth[i]) / 256 : 0);
        const double ratio = error <= limit ? (limit > 0 ? error / limit : 0) : error == error ? error / std::max(limit, 1e-30) : INFINITY;
        score.worst = std::max(score.worst, ratio);
        if (error > score.error) score.error = error;
    }
    score.values += truth.size();
}
static void check(const std::string& name, const Doubles& ours, const Doubles& truth, double allowed, Type type = F32) {
    check(name, ours, truth, [=](size_t) { return allowed; }, type);
}

static unsigned ceil_div(uint64_t a, uint64_t b) { return static_cast<unsigned>((a + b - 1) / b); }

template <typename P>
struct Kernel {
    const char* name;
    void (*function)(P);
    Type first, second;
};
#define K1(NAME) {#NAME "_f32", NAME##_f32, F32, F32}, {#NAME "_bf16", NAME##_bf16, BF16, BF16}
#define K3(NAME) {#NAME "_f32_f32", NAME##_f32_f32, F32, F32}, {#NAME "_f32_bf16", NAME##_f32_bf16, F32, BF16}, {#NAME "_bf16_bf16", NAME##_bf16_bf16, BF16, BF16}

static const std::vector<std::pair<unsigned, unsigned>> kShapes = {
    {257, 384}, {130, 768}, {65, 1024}, {65, 1536}, {9, 8192}, {1, 1},    {3, 1},    {1, 7},    {7, 5},     {6, 127},
    {9, 129},   {31, 383},  {33, 385},  {129, 4},   {5, 516},  {3, 1028}, {34, 2052}, {3, 4100}, {2, 8191}, {300, 8},
    {100, 12},  {37, 513},  {260, 136}, {127, 257}, {2, 3},    {1, 384},  {129, 1},
};

static unsigned warps_per_row(unsigned cols) {
    unsigned warps = 1;
    while (cols > 512 * warps) warps *= 2;
    return warps;
}

static void reduce(const Buf& partial, PeftkCut cut, unsigned cols, unsigned split, const Buf& out, const Buf* rest, const Buf* gain = nullptr) {
    const PeftkReducePartialsParams p{partial.at(), gain ? gain->at() : 0, out.at(), rest ? rest->at() : 0, cols, split, cut};
    reduce_partials_f32<<<ceil_div(cols, 8), 256>>>(p);
}

static void layer_norms() {
    const Kernel<PeftkLayerNormParams> forwards[] = {K3(layer_norm_forward)};
    const Kernel<PeftkLayerNormBackwardParams> backwards[] = {K3(layer_norm_backward)}, weights[] = {K3(layer_norm_backward_weights)};
    for (int k = 0; k < 3; ++k) {
        for (const auto& shape : kShapes) {
            const unsigned rows = shape.first, cols = shape.second;
            const Type r = forwards[k].first, t = forwards[k].second;
            const size_t n = static_cast<size_t>(rows) * cols;
            Buf x = random_buf(r, n, 1, 3), w = random_buf(F32, cols), b = random_buf(F32, cols), dy = random_buf(t, n), add = random_buf(r, n);
            Buf y(t, n), mean(F32, rows), rstd(F32, rows);
            const unsigned warps = warps_per_row(cols), block = std::max(4u, warps) * 32, per_block = std::max(4u, warps) / warps;
            forwards[k].function<<<ceil_div(rows, per_block), block>>>({x.at(), w.at(), b.at(), y.at(), mean.at(), rstd.at(), 1e-6f, rows, cols, warps});
            Doubles ty(n), tmean(rows), trstd(rows), tdx(n), tadd(n), tw(cols), tb(cols), magnitude(rows);
            for (unsigned i = 0; i < rows; ++i) {
                double sum = 0, squares = 0;
                for (unsigned c = 0; c < cols; ++c) sum += x.host[i * cols + c];
                const double m = sum / cols;
                for (unsigned c = 0; c < cols; ++c) squares += std::pow(x.host[i * cols + c] - m, 2);
                tmean[i] = m;
                trstd[i] = 1 / std::sqrt(squares / cols + 1e-6);
                double dh = 0, dhh = 0;
                for (unsigned c = 0; c < cols; ++c) {
                    const double h = (x.host[i * cols + c] - m) * trstd[i], d = dy.host[i * cols + c] * w.host[c];
                    ty[i * cols + c] = h * w.host[c] + b.host[c];
                    dh += d / cols, dhh += d * h / cols;
                    tw[c] += dy.host[i * cols + c] * h, tb[c] += dy.host[i * cols + c];
                }
                for (unsigned c = 0; c < cols; ++c) {
                    const double h = (x.host[i * cols + c] - m) * trstd[i], d = dy.host[i * cols + c] * w.host[c];
                    tdx[i * cols + c] = trstd[i] * (d - dh - h * dhh);
                    tadd[i * cols + c] = tdx[i * cols + c] + add.host[i * cols + c];
                }
                magnitude[i] = trstd[i];
            }
            // rstd reaches 1000 in rows of one or nearly equal values: errors of x - mean grow with it.
            const auto row_limit = [&](size_t i) { return 4e-6 * std::max(1.0, magnitude[i / cols]); };
            check(forwards[k].name, y.read(), ty, row_limit, t);
            check(forwards[k].name, mean.read(), tmean, 2e-6);
            check(forwards[k].name, rstd.read(), trstd, [&](size_t i) { return 1e-5 * trstd[i] + 1e-6 * std::pow(trstd[i], 2); });

            Buf dx(r, n), dx_add(r, n), dx_weights(r, n), partial(F32, ceil_div(rows, 32) * size_t(2) * cols), dw(F32, cols), db(F32, cols);
            PeftkLayerNormBackwardParams p{x.at(), w.at(), mean.at(), rstd.at(), dy.at(), 0, dx.at(), 0, rows, cols, warps, 0, one_granule(rows, 32)};
            backwards[k].function<<<ceil_div(rows, per_block), block>>>(p);
            const auto dx_limit = [&](size_t i) { return 1e-5 * std::pow(std::max(1.0, magnitude[i / cols]), 2); };
            check(backwards[k].name, dx.read(), tdx, dx_limit, r);
            p.add = p.dx = dx_add.at();
            CUDA(cudaMemcpy(dx_add.device, add.device, add.bytes(), cudaMemcpyDeviceToDevice));
            backwards[k].function<<<ceil_div(rows, per_block), block>>>(p);
            check(backwards[k].name, dx_add.read(), tadd, [&](size_t i) { return dx_limit(i) + (r == BF16 ? std::fabs(tdx[i]) / 256 : 0); }, r);
            p.add = 0, p.dx = dx_weights.at(), p.partial = partial.at();
            weights[k].function<<<ceil_div(rows, 32), block>>>(p);
            reduce(partial, one_granule(rows, 32), 2 * cols, cols, dw, &db);
            check(weights[k].name, dx_weights.read(), tdx, dx_limit, r);
            const double largest = *std::max_element(magnitude.begin(), magnitude.end());
            check(weights[k].name, dw.read(), tw, 4e-6 * (4 + std::sqrt(rows)) * std::max(1.0, largest));
            check(weights[k].name, db.read(), tb, 2e-6 * (4 + std::sqrt(rows)));
        }
    }
}

static void layer_scales() {
    const Kernel<PeftkLayerScaleParams> forwards[] = {K3(layer_scale_forward)};
    const Kernel<PeftkLayerScaleBackwardParams> backwards[] = {K3(layer_scale_backward)};
    for (int k = 0; k < 3; ++k) {
        for (const auto& [rows, cols] : kShapes) {
            const Type r = forwards[k].first, t = forwards[k].second;
            const size_t n = static_cast<size_t>(rows) * cols;
            Buf x = random_buf(r, n), h = random_buf(t, n), gamma = random_buf(F32, cols), dy = random_buf(r, n), y(r, n), dh(t, n), dgamma(F32, cols);
            Buf partial(F32, static_cast<size_t>(ceil_div(rows, 128)) * cols);
            forwards[k].function<<<ceil_div(n, 2048), 256>>>({x.at(), h.at(), gamma.at(), y.at(), rows, cols});
            backwards[k].function<<<ceil_div(rows, 128) * ceil_div(cols, 128), 256>>>({h.at(), gamma.at(), dy.at(), dh.at(), partial.at(), one_granule(rows, 128), cols, 0});
            reduce(partial, one_granule(rows, 128), cols, cols, dgamma, nullptr);
            Doubles ty(n), tdh(n), tgamma(cols);
            for (size_t i = 0; i < n; ++i) {
                ty[i] = x.host[i] + gamma.host[i % cols] * h.host[i];
                tdh[i] = gamma.host[i % cols] * dy.host[i];
                tgamma[i % cols] += dy.host[i] * h.host[i];
            }
            check(forwards[k].name, y.read(), ty, 1e-6, r);
            check(backwards[k].name, dh.read(), tdh, 1e-6, t);
            check(backwards[k].name, dgamma.read(), tgamma, 2e-6 * (4 + std::sqrt(rows)));
        }
    }
}

static double cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }
static double density(double x) { return std::exp(-0.5 * x * x) / std::sqrt(2 * M_PI); }
static double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

static void maps() {
    const Kernel<PeftkMapParams> gelus[] = {K1(gelu_forward)};
    const Kernel<PeftkMapBackwardParams> gelu_backs[] = {K1(gelu_backward)};
    const Kernel<PeftkSwigluParams> swiglus[] = {K1(swiglu_forward)}, swiglu_backs[] = {K1(swiglu_backward)};
    for (int k = 0; k < 2; ++k) {
        const Type t = gelus[k].first;
        for (size_t n : {1, 7, 8, 9, 2047, 2048, 2049, 98765}) {
            Buf x = random_buf(t, n, -9, 9), dy = random_buf(t, n), y(t, n), dx(t, n);
            gelus[k].function<<<ceil_div(n, 2048), 256>>>({x.at(), y.at(), n});
            gelu_backs[k].function<<<ceil_div(n, 2048), 256>>>({x.at(), dy.at(), dx.at(), n});
            Doubles ty(n), tdx(n);
            for (size_t i = 0; i < n; ++i) {
                const double v = x.host[i];
                ty[i] = v * cdf(v), tdx[i] = dy.host[i] * (cdf(v) + v * density(v));
            }
            check(gelus[k].name, y.read(), ty, [&](size_t i) { return 8e-6 * std::fabs(ty[i]) + 1e-12; }, t);
            check(gelu_backs[k].name, dx.read(), tdx, 4e-6, t);
        }
        for (const auto& [rows, cols] : kShapes) {
            const size_t n = static_cast<size_t>(rows) * cols;
            Buf h = random_buf(t, 2 * n, -6, 6), dy = random_buf(t, n), y(t, n), dh(t, 2 * n);
            swiglus[k].function<<<ceil_div(static_cast<uint64_t>(rows) * ceil_div(cols, 8), 256), 256>>>({h.at(), 0, y.at(), rows, cols});
            swiglu_backs[k].function<<<ceil_div(static_cast<uint64_t>(rows) * ceil_div(cols, 8), 256), 256>>>({h.at(), dy.at(), dh.at(), rows, cols});
            Doubles ty(n), tdh(2 * n);
            for (size_t i = 0; i < n; ++i) {
                const size_t g = i / cols * 2 * cols + i % cols, u = g + cols;
                const double s = sigmoid(h.host[g]), d = dy.host[i];
                ty[i] = h.host[g] * s * h.host[u];
                tdh[g] = d * h.host[u] * s * (1 + h.host[g] * (1 - s)), tdh[u] = d * h.host[g] * s;
            }
            check(swiglus[k].name, y.read(), ty, 2e-5, t);
            check(swiglu_backs[k].name, dh.read(), tdh, 2e-5, t);
        }
    }
}

static void column_sums() {
    const Kernel<PeftkColumnSumParams> sums[] = {K1(column_sum)}, dots[] = {K1(column_dot)};
    for (int k = 0; k < 2; ++k) {
        const Type t = sums[k].first;
        for (const auto& [rows, cols] : kShapes) {
            for (const unsigned first : {0u, 8u, 3u}) {
                const unsigned lda = cols + first + (first == 3 ? 2 : 0), ldb = cols, granules = ceil_div(rows, 128);
                Buf a = random_buf(t, static_cast<size_t>(rows) * lda), b = random_buf(t, static_cast<size_t>(rows) * ldb);
                Buf bias = random_buf(F32, cols), gain = random_buf(F32, cols, 0.5, 2), partial(F32, static_cast<size_t>(granules) * cols), sum = random_buf(F32, cols), dot(F32, cols);
                const Doubles before = sum.host;
                const PeftkColumnSumParams p{a.at(first), b.at(), bias.at(), partial.at(), one_granule(rows, 128), 0, cols, lda, ldb};
                sums[k].function<<<granules * ceil_div(cols, 128), 256>>>(p);
                reduce(partial, one_granule(rows, 128, true), cols, cols, sum, nullptr);
                Doubles tsum = before, tdot(cols);
                for (size_t i = 0; i < rows; ++i) {
                    for (size_t c = 0; c < cols; ++c) {
                        tsum[c] += a.host[i * lda + first + c];
                        tdot[c] += a.host[i * lda + first + c] * (b.host[i * ldb + c] - bias.host[c]) / gain.host[c];
                    }
                }
                check(sums[k].name, sum.read(), tsum, 1e-6 * (4 + std::sqrt(rows)));
                dots[k].function<<<granules * ceil_div(cols, 128), 256>>>(p);
                reduce(partial, one_granule(rows, 128), cols, cols, dot, nullptr, &gain);
                check(dots[k].name, dot.read(), tdot, 1e-5 * (4 + std::sqrt(rows)));
            }
        }
    }
}

static void token_kernels() {
    const struct { unsigned batch, registers, patches, width; } shapes[] = {
        {3, 0, 256, 384}, {2, 4, 256, 384}, {1, 1, 1, 1}, {2, 0, 3, 7}, {9, 2, 5, 12}, {17, 4, 16, 130}, {1, 0, 49, 768}, {33, 1, 4, 33}, {5, 0, 1, 8},
    };
    const Kernel<PeftkTokensParams> forwards[] = {
        {"assemble_tokens_forward_f32_f32", assemble_tokens_forward_f32_f32, F32, F32}, {"assemble_tokens_forward_bf16_f32", assemble_tokens_forward_bf16_f32, BF16, F32}, {"assemble_tokens_forward_bf16_bf16", assemble_tokens_forward_bf16_bf16, BF16, BF16}};
    const Kernel<PeftkTokensParams> backwards[] = {
        {"assemble_tokens_backward_f32_f32", assemble_tokens_backward_f32_f32, F32, F32}, {"assemble_tokens_backward_bf16_f32", assemble_tokens_backward_bf16_f32, BF16, F32}, {"assemble_tokens_backward_bf16_bf16", assemble_tokens_backward_bf16_bf16, BF16, BF16}};
    const Kernel<PeftkPoolParams> pools[] = {K1(pool_forward)}, pool_backs[] = {K1(pool_backward)};
    for (const auto& s : shapes) {
        const unsigned tokens = 1 + s.registers + s.patches;
        const size_t w = s.width, rows = static_cast<size_t>(s.batch) * tokens;
        for (int k = 0; k < 3; ++k) {
            const Type t = forwards[k].first, r = forwards[k].second;
            Buf patches = random_buf(t, s.batch * s.patches * w), cls = random_buf(F32, w), pos = random_buf(F32, (1 + s.patches) * w), registers = random_buf(F32, std::max<size_t>(1, s.registers * w)), x(r, rows * w);
            forwards[k].function<<<ceil_div(rows * ceil_div(w, 8), 256), 256>>>({patches.at(), cls.at(), pos.at(), s.registers ? registers.at() : 0, x.at(), s.batch, s.registers, s.patches, s.width, 0, 0});
            Buf dx = random_buf(r, rows * w), dpatches(t, s.batch * s.patches * w), dcls(F32, w), dpos(F32, (1 + s.patches) * w), dregisters(F32, s.registers * w);
            backwards[k].function<<<ceil_div(static_cast<uint64_t>(tokens) * ceil_div(w, 4), 128), 128>>>({dpatches.at(), dcls.at(), dpos.at(), s.registers ? dregisters.at() : 0, dx.at(), s.batch, s.registers, s.patches, s.width, 0, 0});
            Doubles tx(rows * w), tpatches(dpatches.count), tcls(w), tpos(dpos.count), tregisters(dregisters.count);
            for (size_t i = 0; i < rows * w; ++i) {
                const size_t c = i % w, token = i / w % tokens, image = i / w / tokens;
                if (token == 0) tx[i] = cls.host[c] + pos.host[c], tcls[c] += dx.host[i], tpos[c] += dx.host[i];
                else if (token <= s.registers) tx[i] = registers.host[(token - 1) * w + c], tregisters[(token - 1) * w + c] += dx.host[i];
                else {
                    const size_t patch = token - 1 - s.registers, at = (image * s.patches + patch) * w + c;
                    tx[i] = patches.host[at] + pos.host[(1 + patch) * w + c], tpatches[at] = dx.host[i], tpos[(1 + patch) * w + c] += dx.host[i];
                }
            }
            check(forwards[k].name, x.read(), tx, 1e-6, r);
            check(backwards[k].name, dpatches.read(), tpatches, 1e-6, t);
            for (const auto& [ours, truth] : {std::pair{&dcls, &tcls}, std::pair{&dpos, &tpos}, std::pair{&dregisters, &tregisters}}) check(backwards[k].name, ours->read(), *truth, 1e-6 * (2 + s.batch));
        }
        for (int k = 0; k < 2; ++k) {
            for (unsigned mean : {0u, 1u}) {
                const Type t = pools[k].first;
                const size_t wide = w * (1 + mean);
                Buf x = random_buf(t, rows * w), pooled(F32, s.batch * wide), dpooled = random_buf(F32, s.batch * wide), dx(t, rows * w);
                pools[k].function<<<dim3(ceil_div(w, 128), s.batch), 256>>>({x.at(), pooled.at(), s.batch, s.registers, s.patches, s.width, mean, 0});
                pool_backs[k].function<<<ceil_div(rows * ceil_div(w, 8), 256), 256>>>({dx.at(), dpooled.at(), s.batch, s.registers, s.patches, s.width, mean, 0});
                Doubles tpooled(pooled.count), tdx(rows * w);
                for (size_t i = 0; i < rows * w; ++i) {
                    const size_t c = i % w, token = i / w % tokens, image = i / w / tokens;
                    if (token == 0) tpooled[image * wide + c] = x.host[i], tdx[i] = dpooled.host[image * wide + c];
                    else if (token > s.registers && mean) tpooled[image * wide + w + c] += x.host[i] / s.patches, tdx[i] = dpooled.host[image * wide + w + c] / s.patches;
                }
                check(pools[k].name, pooled.read(), tpooled, 2e-6);
                check(pool_backs[k].name, dx.read(), tdx, 1e-6, t);
            }
        }
    }
    const Kernel<PeftkPatchesParams> patch_kernels[] = {K1(patches_u8)};
    const struct { unsigned batch, size, patch; } images[] = {{2, 224, 14}, {1, 14, 14}, {3, 28, 14}, {2, 48, 16}, {5, 6, 3}, {2, 5, 1}, {33, 4, 2}, {1, 70, 7}};
    for (const auto& s : images) {
        for (int k = 0; k < 2; ++k) {
            const Type t = patch_kernels[k].first;
            const unsigned grid = s.size / s.patch, inner = 3 * s.patch * s.patch, ld = t == F32 ? inner : (inner + 7) / 8 * 8;
            const size_t rows = static_cast<size_t>(s.batch) * grid * grid;
            std::vector<uint8_t> bytes(static_cast<size_t>(s.batch) * s.size * s.size * 3);
            for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(generator());
            uint8_t* device;
            CUDA(cudaMalloc(&device, bytes.size()));
            CUDA(cudaMemcpy(device, bytes.data(), bytes.size(), cudaMemcpyHostToDevice));
            const double mean[] = {0.485, 0.456, 0.406}, deviation[] = {0.229, 0.224, 0.225};
            Buf out(t, rows * ld);
            PeftkPatchesParams p{reinterpret_cast<uint64_t>(device), out.at(), {}, {}, s.batch, s.size, s.patch, ld};
            for (int c = 0; c < 3; ++c) p.scale[c] = static_cast<float>(1 / (255 * deviation[c])), p.shift[c] = static_cast<float>(-mean[c] / deviation[c]);
            patch_kernels[k].function<<<ceil_div(ld, 256) * ceil_div(rows, 32), 256>>>(p);
            Doubles truth(rows * ld);
            for (size_t row = 0; row < rows; ++row) {
                for (unsigned i = 0; i < inner; ++i) {
                    const size_t image = row / (grid * grid), py = row / grid % grid, px = row % grid, c = i / (s.patch * s.patch), y = i / s.patch % s.patch, x = i % s.patch;
                    truth[row * ld + i] = (bytes[((image * s.size + py * s.patch + y) * s.size + px * s.patch + x) * 3 + c] / 255.0 - mean[c]) / deviation[c];
                }
            }
            check(patch_kernels[k].name, out.read(), truth, 2e-6, t);
            cudaFree(device);
        }
    }
    const struct { unsigned from, to, width; } grids[] = {{37, 16, 384}, {1, 1, 1}, {5, 9, 130}, {9, 5, 3}, {1369, 256, 64}};
    for (const auto& s : grids) {
        Buf pos = random_buf(F32, (1 + s.from) * s.width), dy = random_buf(F32, (1 + s.to) * s.width), matrix = random_buf(F32, s.to * s.from, -0.1, 0.1), out(F32, dy.count), dpos(F32, pos.count);
        resample_positions_forward_f32<<<dim3(ceil_div(s.width, 32), 1 + ceil_div(s.to, 4)), 256>>>({pos.at(), matrix.at(), out.at(), s.from, s.to, s.width, 0});
        resample_positions_backward_f32<<<dim3(ceil_div(s.width, 32), 1 + ceil_div(s.from, 4)), 256>>>({dy.at(), matrix.at(), dpos.at(), s.from, s.to, s.width, 0});
        Doubles tout(out.count), tdpos(dpos.count);
        for (unsigned c = 0; c < s.width; ++c) {
            tout[c] = pos.host[c], tdpos[c] = dy.host[c];
            for (unsigned i = 0; i < s.to; ++i) {
                for (unsigned j = 0; j < s.from; ++j) {
                    tout[(1 + i) * s.width + c] += matrix.host[i * s.from + j] * pos.host[(1 + j) * s.width + c];
                    tdpos[(1 + j) * s.width + c] += matrix.host[i * s.from + j] * dy.host[(1 + i) * s.width + c];
                }
            }
        }
        check("resample_positions_forward_f32", out.read(), tout, 2e-5);
        check("resample_positions_backward_f32", dpos.read(), tdpos, 2e-5);
    }
}

static Buf loss_sum(const Buf& partial, float denominator) {
    Buf loss(F32, 1);
    loss_sum_f32<<<1, 1024>>>({partial.at(), loss.at(), denominator, static_cast<uint32_t>(partial.count), 0, 0});
    return loss;
}

static void losses() {
    for (const auto& [rows, classes] : {std::pair{64u, 100u}, {256u, 10u}, {3u, 1000u}, {1u, 1u}, {5u, 2u}, {7u, 129u}, {1500u, 3u}}) {
        for (const float smoothing : {0.0f, 0.1f}) {
            for (const double spread : {3.0, 1e4}) {
                const unsigned ld = classes + 3;
                Buf logits = random_buf(F32, static_cast<size_t>(rows) * ld, -spread, spread), partial(F32, rows), dlogits(F32, logits.count);
                std::vector<int> labels(rows);
                for (int& label : labels) label = static_cast<int>(generator() % (classes + 1)) - 1;
                int* device;
                CUDA(cudaMalloc(&device, rows * 4));
                CUDA(cudaMemcpy(device, labels.data(), rows * 4, cudaMemcpyHostToDevice));
                cross_entropy_f32<<<rows, 128>>>({logits.at(), reinterpret_cast<uint64_t>(device), partial.at(), dlogits.at(), smoothing, 7.0f, rows, classes, ld, 0});
                const Buf loss = loss_sum(partial, 7.0f);
                double total = 0;
                Doubles truth;
                for (unsigned i = 0; i < rows; ++i) {
                    double largest = -INFINITY, sum = 0;
                    for (unsigned c = 0; c < classes; ++c) largest = std::max(largest, logits.host[i * ld + c]);
                    for (unsigned c = 0; c < classes; ++c) sum += std::exp(logits.host[i * ld + c] - largest);
                    for (unsigned c = 0; c < classes; ++c) {
                        const double log_p = logits.host[i * ld + c] - largest - std::log(sum);
                        const double target = double(smoothing) / classes + (static_cast<int>(c) == labels[i] ? 1 - double(smoothing) : 0);
                        if (labels[i] >= 0) total -= target * log_p / 7;
                        truth.push_back(labels[i] >= 0 ? (std::exp(log_p) - target) / 7 : 0);
                    }
                }
                Doubles ours, all = dlogits.read();
                for (unsigned i = 0; i < rows; ++i) ours.insert(ours.end(), all.begin() + i * ld, all.begin() + i * ld + classes);
                check("cross_entropy_f32", ours, truth, 1e-6);
                check("cross_entropy_f32", loss.read(), {total}, 2e-6 * std::fabs(total) + 1e-6);
                cudaFree(device);
            }
        }
    }
    const float k = 0.8f;
    for (const auto& [gp, gn, clip] : {std::tuple{0.0f, 1.0f, 0.05f}, {1.0f, 4.0f, 0.05f}, {0.0f, 0.0f, 0.0f}, {2.0f, 3.0f, 0.0f}, {0.5f, 0.5f, 0.1f}}) {
        for (const auto& [rows, cols] : {std::pair{64u, 80u}, {1u, 1u}, {3u, 7u}, {33u, 129u}}) {
            for (const double spread : {4.0, 90.0}) {
                const unsigned ld = cols + 1;
                Buf logits = random_buf(F32, static_cast<size_t>(rows) * ld, -spread, spread), targets(F32, static_cast<size_t>(rows) * cols), dlogits(F32, logits.count), dbinary(F32, logits.count), partial(F32, ceil_div(static_cast<size_t>(rows) * cols, 1024)), partial_binary(F32, partial.count);
                std::vector<float> values(targets.count);
                for (float& value : values) value = static_cast<float>(static_cast<int>(generator() % 3) - 1);
                targets.set(values);
                const PeftkSigmoidLossParams p{logits.at(), targets.at(), partial.at(), dlogits.at(), 3.0f, gp, gn, clip, k, rows, cols, ld};
                asymmetric_loss_f32<<<static_cast<unsigned>(partial.count), 256>>>(p);
                PeftkSigmoidLossParams pb = p;
                pb.partial = partial_binary.at(), pb.dlogits = dbinary.at();
                binary_cross_entropy_f32<<<static_cast<unsigned>(partial.count), 256>>>(pb);
                const Buf loss = loss_sum(partial, 3.0f), binary = loss_sum(partial_binary, 3.0f);
                double total = 0, total_binary = 0;
                Doubles truth, truth_binary, ours, ours_binary, all = dlogits.read(), all_binary = dbinary.read();
                for (size_t i = 0; i < targets.count; ++i) {
                    const size_t at = i / cols * ld + i % cols;
                    const double x = logits.host[at], p1 = sigmoid(x), n1 = sigmoid(-x), log_p = -std::log1p(std::exp(-x)), t = targets.host[i];
                    ours.push_back(all[at]), ours_binary.push_back(all_binary[at]);
                    total_binary += (std::max(x, 0.0) - x * t + std::log1p(std::exp(-std::fabs(x)))) / 3;
                    truth_binary.push_back((p1 - t) / 3);
                    double value = 0, slope = 0;
                    if (t > 0) {
                        value = -k * std::pow(n1, gp) * log_p;
                        slope = k * std::pow(n1, gp) * (gp * p1 * log_p - n1);
                    } else if (t == 0 && p1 > clip) {
                        const double q = p1 - clip, rest = n1 + clip;
                        value = -std::pow(q, gn) * std::log(rest);
                        slope = (std::pow(q, gn) / rest - gn * std::pow(q, gn - 1) * std::log(rest)) * p1 * n1;
                    }
                    total += value / 3;
                    truth.push_back(slope / 3);
                }
                check("asymmetric_loss_f32", ours, truth, gn < 1 && clip > 0 ? 1e-3 : 1e-5);
                check("asymmetric_loss_f32", loss.read(), {total}, 1e-5 * total + 1e-6);
                check("binary_cross_entropy_f32", ours_binary, truth_binary, 1e-6);
                check("binary_cross_entropy_f32", binary.read(), {total_binary}, 1e-5 * std::fabs(total_binary) + 1e-5);
            }
        }
    }
}

static void optimizers() {
    std::vector<size_t> lengths = {1, 3, 384, 2047, 2048, 2049, 3072, 100001};
    std::vector<PeftkAdamwTensor> tensors;
    std::vector<PeftkAdamwBlock> blocks;
    std::vector<Buf> values, grads, ms, vs, shadows;
    double squares = 0;
    for (size_t i = 0; i < lengths.size(); ++i) {
        values.push_back(random_buf(F32, lengths[i])), grads.push_back(random_buf(F32, lengths[i])), ms.push_back(random_buf(F32, lengths[i], -0.1, 0.1)), vs.push_back(random_buf(F32, lengths[i], 0, 0.1)), shadows.emplace_back(BF16, lengths[i]);
        tensors.push_back({values[i].at(), grads[i].at(), ms[i].at(), vs[i].at(), i % 2 ? shadows[i].at() : 0, lengths[i], i % 3 ? 0.05f : 0.0f, 0});
        for (unsigned chunk = 0; chunk * size_t(2048) < lengths[i]; ++chunk) blocks.push_back({static_cast<uint32_t>(i), chunk});
        for (double g : grads[i].host) squares += g * g;
    }
    const auto upload = [](const void* data, size_t bytes) {
        void* device;
        CUDA(cudaMalloc(&device, bytes));
        CUDA(cudaMemcpy(device, data, bytes, cudaMemcpyHostToDevice));
        return reinterpret_cast<uint64_t>(device);
    };
    const double lr = 1e-2, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, steps = 3, limit = 50;
    const PeftkAdamwHyper hyper{float(lr), float(1 - beta1), float(beta2), float(1 - beta2), float(eps), float(lr / (1 - std::pow(beta1, steps))), float(std::sqrt(1 - std::pow(beta2, steps))), 0};
    const uint64_t t = upload(tensors.data(), tensors.size() * sizeof(tensors[0])), b = upload(blocks.data(), blocks.size() * sizeof(blocks[0])), h = upload(&hyper, sizeof(hyper));
    Buf partial(F32, blocks.size()), norm(F32, 4), single(F32, 1);
    const unsigned grid = static_cast<unsigned>(blocks.size());
    sum_squares_multi_f32<<<grid, 256>>>({t, b, partial.at(), 0});
    grad_norm_f32<<<1, 1024>>>({partial.at(), norm.at(), grid, float(limit)});
    adamw_multi_f32<<<grid, 256>>>({t, b, h, norm.at()});
    const Doubles result = norm.read();
    const double root = std::sqrt(squares), factor = std::min(1.0, limit / (root + 1e-6));
    check("sum_squares_multi_f32", {result[0]}, {squares}, 1e-6 * squares);
    check("grad_norm_f32", {result[1], result[2]}, {root, factor}, [&](size_t i) { return 1e-6 * (i ? factor : root); });
    for (size_t i = 0; i < lengths.size(); ++i) {
        Doubles tv(lengths[i]), tm(lengths[i]), tsv(lengths[i]);
        for (size_t j = 0; j < lengths[i]; ++j) {
            const double g = factor * grads[i].host[j];
            double value = values[i].host[j] * (1 - lr * tensors[i].weight_decay);
            tm[j] = ms[i].host[j] + (1 - beta1) * (g - ms[i].host[j]);
            tsv[j] = vs[i].host[j] * beta2 + (1 - beta2) * g * g;
            tv[j] = value - lr / (1 - std::pow(beta1, steps)) * tm[j] / (std::sqrt(tsv[j]) / std::sqrt(1 - std::pow(beta2, steps)) + eps);
        }
        check("adamw_multi_f32", values[i].read(), tv, 1e-6);
        check("adamw_multi_f32", ms[i].read(), tm, 1e-6);
        check("adamw_multi_f32", vs[i].read(), tsv, 1e-6);
        if (tensors[i].shadow) check("adamw_multi_f32", shadows[i].read(), tv, 1e-6, BF16);
        single.read();
        Buf parts(F32, ceil_div(lengths[i], 2048));
        sum_squares_f32<<<static_cast<unsigned>(parts.count), 256>>>({grads[i].at(), 0, parts.at(), lengths[i]});
        grad_norm_f32<<<1, 1024>>>({parts.at(), norm.at(), static_cast<uint32_t>(parts.count), 0.0f});
        double sum = 0;
        for (double g : grads[i].host) sum += g * g;
        check("sum_squares_f32", {norm.read()[0]}, {sum}, 1e-6 * sum);
    }
    // A gradient that is not finite: the flag is set and nothing is changed.
    std::vector<float> bad(lengths[2], 1.0f);
    bad[7] = NAN;
    grads[2].set(bad);
    const Doubles before = values[7].read();
    sum_squares_multi_f32<<<grid, 256>>>({t, b, partial.at(), 0});
    grad_norm_f32<<<1, 1024>>>({partial.at(), norm.at(), grid, float(limit)});
    adamw_multi_f32<<<grid, 256>>>({t, b, h, norm.at()});
    if (values[7].read() != before) check("adamw_multi_f32", {1}, {0}, 0.0);
}

static uint64_t split_mix(uint64_t seed, uint64_t index) {
    uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static void elementwises() {
    const struct { const char* name; void (*f)(PeftkMapParams); Type acc, x; } adds[] = {{"add_assign_f32_f32", add_assign_f32_f32, F32, F32}, {"add_assign_f32_bf16", add_assign_f32_bf16, F32, BF16}, {"add_assign_bf16_f32", add_assign_bf16_f32, BF16, F32}, {"add_assign_bf16_bf16", add_assign_bf16_bf16, BF16, BF16}};
    const struct { const char* name; void (*f)(PeftkCastParams); Type from, to; } casts[] = {{"cast_f32_f32", cast_f32_f32, F32, F32}, {"cast_f32_bf16", cast_f32_bf16, F32, BF16}, {"cast_bf16_f32", cast_bf16_f32, BF16, F32}, {"cast_bf16_bf16", cast_bf16_bf16, BF16, BF16}};
    const Kernel<PeftkScaleParams> scales[] = {K1(scale_assign)}, fills[] = {K1(fill)};
    const Kernel<PeftkDropoutParams> dropouts[] = {K1(dropout)};
    for (size_t n : {1, 7, 8, 9, 2047, 2048, 2049, 98765}) {
        for (const auto& add : adds) {
            Buf acc = random_buf(add.acc, n), x = random_buf(add.x, n);
            add.f<<<ceil_div(n, 2048), 256>>>({x.at(), acc.at(), n});
            Doubles truth(n);
            for (size_t i = 0; i < n; ++i) truth[i] = acc.host[i] + x.host[i];
            check(add.name, acc.read(), truth, 1e-6, add.acc);
        }
        for (int k = 0; k < 2; ++k) {
            Buf x = random_buf(scales[k].first, n), filled(scales[k].first, n), dropped(scales[k].first, n);
            const double p = 0.3, seed = 12345;
            dropouts[k].function<<<ceil_div(n, 2048), 256>>>({x.at(), dropped.at(), n, uint64_t(seed), uint32_t(std::ceil(p * (1 << 24))), float(1 / (1 - p))});
            Doubles scaled(n), kept(n);
            for (size_t i = 0; i < n; ++i) {
                scaled[i] = 0.37f * x.host[i];
                kept[i] = double(split_mix(uint64_t(seed), i) >> 40) / (1 << 24) >= p ? x.host[i] / (1 - p) : 0;
            }
            check(dropouts[k].name, dropped.read(), kept, 1e-6, scales[k].first);
            scales[k].function<<<ceil_div(n, 2048), 256>>>({x.at(), n, 0.37f, 0});
            fills[k].function<<<ceil_div(n, 2048), 256>>>({filled.at(), n, 1.5f, 0});
            check(scales[k].name, x.read(), scaled, 1e-6, scales[k].first);
            check(fills[k].name, filled.read(), Doubles(n, 1.5), 0.0);
        }
    }
    for (const auto& cast : casts) {
        for (const auto& [rows, cols] : kShapes) {
            for (const unsigned pad : {0u, 4u, 8u, 3u}) {
                const unsigned from = cols + pad % 5, to = cols + pad;
                Buf x = random_buf(cast.from, static_cast<size_t>(rows) * from), y(cast.to, static_cast<size_t>(rows) * to);
                cast.f<<<ceil_div(static_cast<uint64_t>(rows) * ceil_div(to, 8), 256), 256>>>({x.at(), y.at(), rows, cols, from, to});
                Doubles truth(y.count);
                for (size_t i = 0; i < rows; ++i) {
                    for (size_t c = 0; c < cols; ++c) truth[i * to + c] = x.host[i * from + c];
                }
                check(cast.name, y.read(), truth, 0.0, cast.to);
            }
        }
    }
}

// ---- Timing ----

template <typename T>
__global__ void lab_random(T* target, size_t count, uint64_t seed, float scale) {
    for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
        const float value = static_cast<float>(elementwise::mask_bits(seed, i)) / (1 << 23) - 1.0f;
        put(target + i, value * scale);
    }
}

static double copy_gb = 0;

// `rotations` launches with other memory each between two events, so that nothing is left in L2 of the last time.
static void time(const char* name, double bytes, const std::function<void(int)>& launch, int rotations = 3) {
    std::vector<float> times;
    cudaEvent_t start, end;
    CUDA(cudaEventCreate(&start));
    CUDA(cudaEventCreate(&end));
    for (int i = 0; i < 23; ++i) {
        CUDA(cudaEventRecord(start));
        for (int r = 0; r < rotations; ++r) launch(r);
        CUDA(cudaEventRecord(end));
        CUDA(cudaEventSynchronize(end));
        float ms;
        CUDA(cudaEventElapsedTime(&ms, start, end));
        if (i > 1) times.push_back(ms / rotations);
    }
    CUDA(cudaGetLastError());
    std::sort(times.begin(), times.end());
    const double gb = bytes / times[times.size() / 2] / 1e6;
    if (copy_gb == 0) copy_gb = gb;
    std::printf("%-46s %8.1f us %7.0f GB/s %5.1f%% of copy\n", name, times[times.size() / 2] * 1e3, gb, 100 * gb / copy_gb);
    cudaEventDestroy(start);
    cudaEventDestroy(end);
}

struct Block {
    std::vector<unsigned char*> parts;
    Type type;
    Block(Type type, size_t count) : type(type) {
        for (int r = 0; r < 3; ++r) {
            unsigned char* part;
            CUDA(cudaMalloc(&part, count * (type == F32 ? 4 : 2)));
            if (type == F32) lab_random<<<1024, 256>>>(reinterpret_cast<float*>(part), count, r + 1, 2.0f);
            else lab_random<<<1024, 256>>>(reinterpret_cast<Bf16*>(part), count, r + 1, 2.0f);
            parts.push_back(part);
        }
    }
    ~Block() {
        for (unsigned char* part : parts) cudaFree(part);
    }
    uint64_t operator[](int r) const { return reinterpret_cast<uint64_t>(parts[r]); }
};

static void timings() {
    const unsigned rows = 65792;
    for (const unsigned cols : {384u, 1536u}) {
        const size_t n = static_cast<size_t>(rows) * cols;
        const double f = 4.0 * n, h = 2.0 * n;
        Block a(F32, n), b(F32, n), c(F32, n), d(BF16, n), e(BF16, n), g(BF16, n), w(F32, cols), mean(F32, rows), partial(F32, size_t(ceil_div(rows, 32)) * 2 * cols), out(F32, 2 * cols);
        std::printf("\n[%u, %u]\n", rows, cols);
        time("copy f32", 2 * f, [&](int r) { cudaMemcpyAsync((void*)b[r], (void*)a[r], size_t(f), cudaMemcpyDeviceToDevice); });
        time("copy bf16", 2 * h, [&](int r) { cudaMemcpyAsync((void*)e[r], (void*)d[r], size_t(h), cudaMemcpyDeviceToDevice); });
        const unsigned warps = warps_per_row(cols), block = std::max(4u, warps) * 32, per_block = std::max(4u, warps) / warps;
        time("layer_norm_forward_f32_bf16", f + h, [&](int r) { layer_norm_forward_f32_bf16<<<ceil_div(rows, per_block), block>>>({a[r], w[0], w[1], d[r], mean[0], mean[1], 1e-6f, rows, cols, warps}); });
        time("layer_norm_forward_bf16_bf16", 2 * h, [&](int r) { layer_norm_forward_bf16_bf16<<<ceil_div(rows, per_block), block>>>({e[r], w[0], w[1], d[r], mean[0], mean[1], 1e-6f, rows, cols, warps}); });
        time("layer_norm_backward_f32_bf16", 2 * f + h, [&](int r) { layer_norm_backward_f32_bf16<<<ceil_div(rows, per_block), block>>>({a[r], w[0], mean[0], mean[1], d[r], 0, b[r], 0, rows, cols, warps, 0}); });
        time("layer_norm_backward_f32_bf16 in-place add", 3 * f + h, [&](int r) { layer_norm_backward_f32_bf16<<<ceil_div(rows, per_block), block>>>({a[r], w[0], mean[0], mean[1], d[r], b[r], b[r], 0, rows, cols, warps, 0}); });
        time("layer_norm_backward_bf16_bf16 in-place add", 4 * h, [&](int r) { layer_norm_backward_bf16_bf16<<<ceil_div(rows, per_block), block>>>({d[r], w[0], mean[0], mean[1], e[r], g[r], g[r], 0, rows, cols, warps, 0}); });
        time("layer_norm_backward_weights_f32_bf16", 2 * f + h, [&](int r) { layer_norm_backward_weights_f32_bf16<<<ceil_div(rows, 32), block>>>({a[r], w[0], mean[0], mean[1], d[r], 0, c[r], partial[r], rows, cols, warps, 0}); });
        time("reduce_partials_f32 [2056, 2 cols]", 8.0 * cols * ceil_div(rows, 32), [&](int r) { reduce_partials_f32<<<ceil_div(2 * cols, 8), 1024>>>({partial[r], 0, out[r], out[r], ceil_div(rows, 32), 2 * cols, 2 * cols, 0}); });
        time("layer_scale_forward_f32_bf16", 2 * f + h, [&](int r) { layer_scale_forward_f32_bf16<<<ceil_div(n, 2048), 256>>>({a[r], d[r], w[0], b[r], rows, cols}); });
        time("layer_scale_forward_bf16_bf16", 3 * h, [&](int r) { layer_scale_forward_bf16_bf16<<<ceil_div(n, 2048), 256>>>({d[r], e[r], w[0], g[r], rows, cols}); });
        const unsigned tiles = ceil_div(rows, 128) * ceil_div(cols, 128);
        time("layer_scale_backward_f32_bf16 dh", f + h, [&](int r) { layer_scale_backward_f32_bf16<<<tiles, 256>>>({0, w[0], a[r], d[r], 0, rows, cols}); });
        time("layer_scale_backward_f32_bf16 dh, dgamma", f + 2 * h, [&](int r) { layer_scale_backward_f32_bf16<<<tiles, 256>>>({e[r], w[0], a[r], d[r], partial[r], rows, cols}); });
        time("layer_scale_backward_bf16_bf16 dh, dgamma", 3 * h, [&](int r) { layer_scale_backward_bf16_bf16<<<tiles, 256>>>({e[r], w[0], g[r], d[r], partial[r], rows, cols}); });
        time("gelu_forward_bf16", 2 * h, [&](int r) { gelu_forward_bf16<<<ceil_div(n, 2048), 256>>>({d[r], e[r], n}); });
        time("gelu_backward_bf16", 3 * h, [&](int r) { gelu_backward_bf16<<<ceil_div(n, 2048), 256>>>({d[r], e[r], g[r], n}); });
        time("gelu_forward_f32", 2 * f, [&](int r) { gelu_forward_f32<<<ceil_div(n, 2048), 256>>>({a[r], b[r], n}); });
        time("swiglu_forward_bf16 (half width)", 1.5 * h, [&](int r) { swiglu_forward_bf16<<<ceil_div(n / 2, 2048), 256>>>({d[r], 0, e[r], rows, cols / 2}); });
        time("swiglu_backward_bf16 (half width)", 2.5 * h, [&](int r) { swiglu_backward_bf16<<<ceil_div(n / 2, 2048), 256>>>({d[r], e[r], g[r], rows, cols / 2}); });
        time("column_sum_bf16", h, [&](int r) { column_sum_bf16<<<tiles, 256>>>({d[r], 0, 0, partial[r], rows, cols, cols, cols}); });
        time("column_dot_bf16", 2 * h, [&](int r) { column_dot_bf16<<<tiles, 256>>>({d[r], e[r], w[0], partial[r], rows, cols, cols, cols}); });
        time("reduce_partials_f32 [514, cols]", 4.0 * cols * ceil_div(rows, 128), [&](int r) { reduce_partials_f32<<<ceil_div(cols, 8), 1024>>>({partial[r], 0, out[r], out[r], ceil_div(rows, 128), cols, cols, 0}); });
        time("add_assign_f32_bf16", 2 * f + h, [&](int r) { add_assign_f32_bf16<<<ceil_div(n, 2048), 256>>>({d[r], a[r], n}); });
        time("cast_f32_bf16", f + h, [&](int r) { cast_f32_bf16<<<ceil_div(n, 2048), 256>>>({a[r], d[r], rows, cols, cols, cols}); });
        time("dropout_bf16", 2 * h, [&](int r) { dropout_bf16<<<ceil_div(n, 2048), 256>>>({d[r], e[r], n, 1, 1 << 22, 1.1f}); });
        if (cols == 384) {
            const unsigned batch = 256, patches = 256;
            const size_t all = size_t(batch) * patches * cols;
            Block pos(F32, 257 * cols);
            time("assemble_tokens_forward_bf16_f32", 2.0 * all + f, [&](int r) { assemble_tokens_forward_bf16_f32<<<ceil_div(n, 2048), 256>>>({d[r], w[0], pos[0], 0, a[r], batch, 0, patches, cols}); });
            time("assemble_tokens_backward_bf16_f32", 2.0 * all + f, [&](int r) { assemble_tokens_backward_bf16_f32<<<ceil_div(257 * cols / 4, 128), 128>>>({d[r], out[0], pos[1], 0, a[r], batch, 0, patches, cols}); });
            time("pool_forward_bf16 with mean", h, [&](int r) { pool_forward_bf16<<<dim3(3, batch), 256>>>({d[r], b[r], batch, 0, patches, cols, 1, 0}); });
            time("pool_backward_bf16 with mean", h, [&](int r) { pool_backward_bf16<<<ceil_div(n, 2048), 256>>>({d[r], b[r], batch, 0, patches, cols, 1, 0}); });
            const unsigned ld = 592;
            Block rows_of_patches(BF16, size_t(batch) * 256 * ld);
            time("patches_u8_bf16 256 x 224 px", 3.0 * 224 * 224 * batch + 2.0 * batch * 256 * ld, [&](int r) { patches_u8_bf16<<<ceil_div(ld, 256) * ceil_div(batch * 256, 32), 256>>>({a[r], rows_of_patches[r], {0.017f, 0.017f, 0.017f}, {-2, -2, -2}, batch, 224, 14, ld}); });
            const size_t length = 22000000;
            std::vector<PeftkAdamwTensor> tensors{{a[0], b[0], c[0], a[1], d[0], length, 0.05f, 0}};
            std::vector<PeftkAdamwBlock> blocks;
            for (unsigned chunk = 0; chunk * size_t(2048) < length; ++chunk) blocks.push_back({0, chunk});
            const PeftkAdamwHyper hyper{1e-3f, 0.1f, 0.999f, 0.001f, 1e-8f, 1e-3f, 1.0f, 0};
            Buf t(F32, 16), table(F32, 2 * blocks.size()), hyper_buf(F32, 8);
            CUDA(cudaMemcpy(t.device, tensors.data(), sizeof(tensors[0]), cudaMemcpyHostToDevice));
            CUDA(cudaMemcpy(table.device, blocks.data(), 8 * blocks.size(), cudaMemcpyHostToDevice));
            CUDA(cudaMemcpy(hyper_buf.device, &hyper, sizeof(hyper), cudaMemcpyHostToDevice));
            time("adamw_multi_f32 22 M, shadow", 30.0 * length, [&](int) { adamw_multi_f32<<<static_cast<unsigned>(blocks.size()), 256>>>({t.at(), table.at(), hyper_buf.at(), 0}); }, 1);
            time("sum_squares_multi_f32 22 M", 4.0 * length, [&](int) { sum_squares_multi_f32<<<static_cast<unsigned>(blocks.size()), 256>>>({t.at(), table.at(), partial[0], 0}); }, 1);
            time("grad_norm_f32 10743 parts", 4.0 * blocks.size(), [&](int) { grad_norm_f32<<<1, 1024>>>({partial[0], out[0], static_cast<uint32_t>(blocks.size()), 1.0f}); }, 1);
        }
    }
    Block logits(F32, 256 * 1000), row_loss(F32, 256), labels(F32, 256);
    CUDA(cudaMemset((void*)labels[0], 0, 1024));
    time("cross_entropy_f32 [256, 1000]", 8.0 * 256000, [&](int r) { cross_entropy_f32<<<256, 128>>>({logits[r], labels[0], row_loss[0], logits[(r + 1) % 3], 0.1f, 256.0f, 256, 1000, 1000, 0}); });
    Block pos(F32, 1370 * 384), matrix(F32, 1369 * 256);
    time("resample_positions_forward_f32 1369 to 256", 4.0 * (1370 * 384 + 257 * 384 + 1369 * 256), [&](int r) { resample_positions_forward_f32<<<dim3(12, 65), 256>>>({pos[r], matrix[r], pos[(r + 1) % 3], 1369, 256, 384, 0}); });
    time("resample_positions_backward_f32 256 to 1369", 4.0 * (1370 * 384 + 257 * 384 + 1369 * 256), [&](int r) { resample_positions_backward_f32<<<dim3(12, 344), 256>>>({pos[r], matrix[r], pos[(r + 1) % 3], 1369, 256, 384, 0}); });
    CUDA(cudaDeviceSynchronize());
}

int main() {
    layer_norms();
    layer_scales();
    maps();
    token_kernels();
    losses();
    optimizers();
    elementwises();
    column_sums();
    bool passed = true;
    for (const auto& [name, score] : scores) {
        const bool good = score.worst <= 1;
        passed = passed && good;
        std::printf("%s %-44s %8zu values, error %.2e, %.3f of what is allowed\n", good ? "PASS" : "FAIL", name.c_str(), score.values, score.error, score.worst);
    }
    std::printf("%s\n", passed ? "ALL PASS" : "SOME FAIL");
    timings();
    return passed ? 0 : 1;
}
