// The attention kernels alone: checked against double loops, then timed.
//
//   nvcc -std=c++17 -O3 -gencode=arch=compute_90a,code=sm_90a -Ikernels -lcuda -o attention tools/lab/attention.cu && ./attention
//
// The ladder, at batch 256, 6 heads, 257 tokens on an H100 (the bar: cuDNN 173 us forward, 514 us backward):
//   floors              forward 202 MB = 68 us of traffic, 29 GFLOP padded = 48 us of mma.sync, 63 us of ldmatrix at 16 rows a
//                       warp, 28 us of exponentials. Backward 404 MB = 136 us, 102 GFLOP = 170 us, 220 us of ldmatrix.
//   rung                                                     predicted us           measured us
//   forward, 16 rows a warp, 5 warps, 3 blocks an SM         130 to 160             163
//   forward, 32 rows a warp (half of the ldmatrix traffic)   110 to 150             211 (resident), 152 (streamed, 4 blocks)
//   backward, both passes in one block, 6 warps, 2 blocks    400 to 500             453
//   backward, a kernel for each pass                         as above + 50          480 to 607
//   forward by wgmma, 64 rows a warpgroup                    100 to 130             151
//   its tail of one row by mma.sync, q ahead of its unit,
//     a step's scores beside the last step's product         118                    123
//   a block a multiprocessor, 4 warpgroups that also fetch
//     the next head                                          90                     127 (copies may hold up the warps they wait in)
//   3 warpgroups and a warp that fetches                     90 to 100              118: what is used on Hopper
//   backward by wgmma, both passes in one block              300 to 400             413 to 419
//   tails by mma.sync, dout v^T and the last step's products
//     under way with the exponentials                        340                    350 to 353: what is used on Hopper
//   the next step's scores under way, too                    250                    365
//   a block a multiprocessor, 3 warpgroups, pairs of
//     matrices through a ring of three places                280                    393
// Before these, 64-row units from L2 alone took 125 us forward and without exponentials 113, and the traffic alone 84 us; one wgmma of
// 16, 32 and 64 columns takes 13, 16 and 32 cycles. Other rungs are in benches/results/lab-h100.txt.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "../../kernels/attention_any.cu"
#include "../../kernels/attention_bf16.cu"
#include "../../kernels/sm90_attention.cu"

#define CHECK(call)                                                                          \
    do {                                                                                     \
        const cudaError_t error = (call);                                                    \
        if (error != cudaSuccess) {                                                          \
            std::printf("FAIL %s:%d %s\n", __FILE__, __LINE__, cudaGetErrorString(error));   \
            std::exit(1);                                                                    \
        }                                                                                    \
    } while (0)

template <unsigned kWarps, unsigned kBlocks, int kTiles, int kStep, bool kResident>
__global__ void __launch_bounds__(32 * kWarps, kBlocks) forward_variant(const PeftkAttentionForwardParams p) {
    attention::forward<kWarps, kTiles, kStep, kResident>(p);
}
template <unsigned kWarps, unsigned kBlocks>
__global__ void __launch_bounds__(32 * kWarps, kBlocks) backward_variant(const PeftkAttentionBackwardParams p) {
    attention::backward_resident<kWarps>(p);
}
template <unsigned kWarps, unsigned kBlocks, bool kResident, bool kKeys>
__global__ void __launch_bounds__(32 * kWarps, kBlocks) pass_variant(const PeftkAttentionBackwardParams p) {
    attention::backward_pass<kWarps, kResident, kKeys>(p);
}

template <unsigned kBlocks, int kKeys, int kQueries>
__global__ void __launch_bounds__(128, kBlocks) backward_sm90_variant(const PeftkAttentionBackwardParams p) {
    attention::backward_sm90<kKeys, kQueries, false>(p);
}

struct Shape {
    unsigned batch, heads, tokens, head_dim;
    size_t pairs() const { return static_cast<size_t>(batch) * heads; }
    size_t rows() const { return static_cast<size_t>(batch) * tokens; }
    size_t width() const { return static_cast<size_t>(heads) * head_dim; }
};

template <class Params>
struct Launch {
    void (*kernel)(Params);
    unsigned threads;
    std::function<unsigned(const Shape&)> blocks_a_pair, shared;
    bool by_turns = false;  // no more blocks than multiprocessors
};

template <class Params>
struct Variant {
    const char* name;
    unsigned most_tokens;  // 0: any
    bool only_64;
    std::vector<Launch<Params>> launches;
};

static unsigned ceil_div(unsigned a, unsigned b) { return (a + b - 1) / b; }
static unsigned one(const Shape&) { return 1; }
static std::function<unsigned(const Shape&)> tiles(unsigned rows) {
    return [rows](const Shape& s) { return ceil_div(s.tokens, rows); };
}
static std::function<unsigned(const Shape&)> bytes(unsigned n) {
    return [n](const Shape&) { return n; };
}
static std::function<unsigned(const Shape&)> groups(unsigned n) {
    return [n](const Shape& s) { return ceil_div(s.tokens, 16) * n; };
}
static unsigned keys_resident(const Shape& s) { return ceil_div(s.tokens, 16) * 4096 + ceil_div(s.tokens, 64) * 512; }
static unsigned sm90_forward_bytes(const Shape& s) {
    const attention::Cut cut(s.tokens);
    const unsigned slot = cut.groups * 3 * attention::kSecond, tail = cut.tail ? attention::kForwardTailBytes : 0;
    return (2 * slot + tail <= 231424 ? 2 : 1) * slot + tail;
}
static std::function<unsigned(const Shape&)> any_tiles(unsigned count) {
    return [count](const Shape& s) { return (count * 64 * (((s.head_dim + 3) / 4 | 1) * 4) + 64 * 68) * 4; };
}

using Fwd = PeftkAttentionForwardParams;
using Bwd = PeftkAttentionBackwardParams;
constexpr unsigned kResidentMost = 320;

#define FORWARD(W, B, T, S) {"forward " #W " warps x " #B ", " #T "x16 rows, step " #S, kResidentMost, true, {{forward_variant<W, B, T, S, true>, 32 * W, one, groups(4096)}}}
#define STREAMED(W, B, T, S) {"forward streamed " #W " warps x " #B ", " #T "x16 rows, step " #S, 0, true, {{forward_variant<W, B, T, S, false>, 32 * W, tiles(16 * W * T), bytes(32768)}}}
#define BACKWARD90(B, K, Q) {"backward wgmma x " #B ", keys " #K ", queries " #Q, kResidentMost, true, {{backward_sm90_variant<B, K, Q>, 128, one, groups(4096 + 128)}}}
#define BACKWARD(W, B) {"backward in one " #W " warps x " #B, kResidentMost, true, {{backward_variant<W, B>, 32 * W, one, groups(4096 + 128)}}}
#define QUERIES(W, B) {pass_variant<W, B, true, false>, 32 * W, one, groups(4096)}
#define KEYS(W, B) {pass_variant<W, B, true, true>, 32 * W, one, keys_resident}
#define QUERIES_STREAMED(W, B) {pass_variant<W, B, false, false>, 32 * W, tiles(16 * W), bytes(32768)}
#define KEYS_STREAMED(W, B) {pass_variant<W, B, false, true>, 32 * W, tiles(16 * W), bytes(32768 + 1024)}

static std::vector<Variant<Fwd>> forward_bf16() {
    return {
        {"attention_forward_bf16", kResidentMost, true, {{attention_forward_bf16, 160, one, groups(4096)}}},
        {"attention_forward_streamed_bf16", 0, true, {{attention_forward_streamed_bf16, 256, tiles(128), bytes(32768)}}},
        {"attention_forward_any_bf16", 0, false, {{attention_forward_any_bf16, 256, tiles(64), any_tiles(3)}}},
        FORWARD(6, 2, 1, 4), FORWARD(6, 2, 1, 2), FORWARD(4, 3, 1, 4), FORWARD(8, 2, 1, 2), FORWARD(6, 3, 1, 1), FORWARD(6, 3, 1, 2),
        FORWARD(5, 3, 1, 4), FORWARD(3, 2, 2, 2), FORWARD(4, 2, 2, 2), FORWARD(4, 3, 2, 2), FORWARD(4, 2, 2, 4), FORWARD(5, 2, 2, 1),
        FORWARD(9, 1, 2, 1), STREAMED(6, 2, 1, 4), STREAMED(4, 4, 1, 4), STREAMED(4, 3, 2, 2), STREAMED(3, 3, 2, 2),
        {"sm90_attention_forward_bf16", kResidentMost, true, {{sm90_attention_forward_bf16, attention::kForwardThreads, one, sm90_forward_bytes, true}}},
    };
}
static std::vector<Variant<Bwd>> backward_bf16() {
    return {
        {"attention_backward_bf16", kResidentMost, true, {{attention_backward_bf16, 192, one, groups(4096 + 128)}}},
        {"attention_backward_{queries,keys}_bf16", 0, true,
         {{attention_backward_queries_bf16, 192, tiles(96), bytes(32768)}, {attention_backward_keys_bf16, 192, tiles(96), bytes(33792)}}},
        {"attention_backward_{queries,keys}_any_bf16", 0, false,
         {{attention_backward_queries_any_bf16, 256, tiles(64), any_tiles(4)}, {attention_backward_keys_any_bf16, 256, tiles(64), any_tiles(4)}}},
        BACKWARD(4, 3), BACKWARD(5, 3), BACKWARD(8, 2), BACKWARD(9, 2),
        {"backward resident q 6x2, k 6x2", kResidentMost, true, {QUERIES(6, 2), KEYS(6, 2)}},
        {"backward resident q 8x2, k 4x3", kResidentMost, true, {QUERIES(8, 2), KEYS(4, 3)}},
        {"backward resident q 5x3, k 5x3", kResidentMost, true, {QUERIES(5, 3), KEYS(5, 3)}},
        {"backward resident q 6x3, k 8x2", kResidentMost, true, {QUERIES(6, 3), KEYS(8, 2)}},
        {"backward streamed q 8x2, k 4x3", 0, true, {QUERIES_STREAMED(8, 2), KEYS_STREAMED(4, 3)}},
        {"backward streamed q 4x4, k 4x4", 0, true, {QUERIES_STREAMED(4, 4), KEYS_STREAMED(4, 4)}},
        {"backward streamed q 6x3, k 3x4", 0, true, {QUERIES_STREAMED(6, 3), KEYS_STREAMED(3, 4)}},
        BACKWARD90(3, 2, 1), BACKWARD90(3, 1, 1), BACKWARD90(2, 2, 2), BACKWARD90(2, 4, 2), BACKWARD90(2, 4, 4),
    };
}
static std::vector<Variant<Fwd>> forward_f32() {
    return {{"attention_forward_f32", 0, false, {{attention_forward_f32, 256, tiles(64), any_tiles(3)}}}};
}
static std::vector<Variant<Bwd>> backward_f32() {
    return {{"attention_backward_{queries,keys}_f32", 0, false,
             {{attention_backward_queries_f32, 256, tiles(64), any_tiles(4)}, {attention_backward_keys_f32, 256, tiles(64), any_tiles(4)}}}};
}

__device__ float uniform(uint64_t x) {
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return static_cast<float>((x ^ (x >> 31)) >> 40) * 0x1p-24f - 0.5f;
}
template <class T>
__global__ void fill(T* data, size_t n, uint64_t seed, float deviation) {  // about normal: the sum of 3 uniform values
    for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < n; i += static_cast<size_t>(gridDim.x) * blockDim.x) {
        const float value = uniform(seed + 3 * i) + uniform(seed + 3 * i + 1) + uniform(seed + 3 * i + 2);
        attention_any::store(data + i, 2.0f * deviation * value);
    }
}

static double wide(float x) { return x; }
static double wide(uint16_t x) {
    const uint32_t bits = static_cast<uint32_t>(x) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

static uint64_t seed;
constexpr size_t kGuard = 64;            // elements behind every output
constexpr size_t kCompared = 4u << 20;   // elements compared between two runs

template <class T>
struct Data {
    T *qkv, *out, *dout, *dqkv;
    float *lse, *workspace;
    size_t n_qkv, n_out, n_lse;

    Data(const Shape& s, float deviation) : n_qkv(3 * s.rows() * s.width()), n_out(s.rows() * s.width()), n_lse(s.pairs() * s.tokens) {
        CHECK(cudaMalloc(&qkv, n_qkv * sizeof(T)));
        CHECK(cudaMalloc(&out, (n_out + kGuard) * sizeof(T)));
        CHECK(cudaMalloc(&dout, n_out * sizeof(T)));
        CHECK(cudaMalloc(&dqkv, (n_qkv + kGuard) * sizeof(T)));
        CHECK(cudaMalloc(&lse, (n_lse + kGuard) * 4));
        CHECK(cudaMalloc(&workspace, 2 * n_lse * 4));
        fill<<<1024, 256>>>(qkv, n_qkv, seed += 0x1234567891ull, deviation);
        fill<<<1024, 256>>>(dout, n_out, seed += 0x1234567891ull, 1.0f);
        CHECK(cudaGetLastError());
    }
    ~Data() {
        for (void* p : {static_cast<void*>(qkv), static_cast<void*>(out), static_cast<void*>(dout), static_cast<void*>(dqkv),
                        static_cast<void*>(lse), static_cast<void*>(workspace)})
            cudaFree(p);
    }
    void poison() {
        CHECK(cudaMemset(workspace, 0xff, 2 * n_lse * 4));
        CHECK(cudaMemset(dqkv, 0xff, (n_qkv + kGuard) * sizeof(T)));
    }
    void poison_forward() {
        CHECK(cudaMemset(out, 0xff, (n_out + kGuard) * sizeof(T)));
        CHECK(cudaMemset(lse, 0xff, (n_lse + kGuard) * 4));
    }
    Fwd forward(const Shape& s) const {
        const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
        return {(uint64_t)qkv, (uint64_t)out, (uint64_t)lse, scale, scale * attention::kLog2e, s.tokens, s.heads, s.head_dim, static_cast<unsigned>(s.pairs())};
    }
    Bwd backward(const Shape& s) const {
        const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
        return {(uint64_t)qkv, (uint64_t)out, (uint64_t)lse, (uint64_t)dout, (uint64_t)dqkv, (uint64_t)workspace,
                scale, scale * attention::kLog2e, s.tokens, s.heads, s.head_dim, static_cast<unsigned>(s.pairs())};
    }
};

static unsigned multiprocessors;

template <class Params>
static void run(const Variant<Params>& v, const Shape& s, const Params& p) {
    for (const auto& l : v.launches) {
        CHECK(cudaFuncSetAttribute(l.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, l.shared(s)));
        const unsigned blocks = static_cast<unsigned>(s.pairs()) * l.blocks_a_pair(s);
        l.kernel<<<l.by_turns ? std::min(blocks, multiprocessors) : blocks, l.threads, l.shared(s)>>>(p);
        CHECK(cudaGetLastError());
    }
}

template <class Params>
static bool fits(const Variant<Params>& v, const Shape& s) {
    return (v.most_tokens == 0 || s.tokens <= v.most_tokens) && (!v.only_64 || s.head_dim == 64);
}

template <class T>
static std::vector<T> copy(const T* device, size_t n) {
    std::vector<T> host(n);
    CHECK(cudaMemcpy(host.data(), device, n * sizeof(T), cudaMemcpyDeviceToHost));
    return host;
}

// ||ours - truth|| / ||truth|| and the largest error over the largest truth.
struct Error {
    double difference = 0, norm = 0, worst = 0, largest = 0;
    bool poisoned = false;
    void add(double ours, double truth) {
        poisoned |= std::isnan(ours);
        difference += (ours - truth) * (ours - truth);
        norm += truth * truth;
        worst = std::max(worst, std::fabs(ours - truth));
        largest = std::max(largest, std::fabs(truth));
    }
    // Of single values (one token: dq and dk are 0 but for rounding) `floor` says what size an error is compared with.
    double relative(double floor, double n) const { return std::sqrt(difference / std::max(norm, floor * floor * n)); }
};

template <class T>
static bool intact(const std::vector<T>& host, size_t n) {
    for (size_t i = 0; i < kGuard; ++i) {
        T poison;
        std::memset(&poison, 0xff, sizeof(T));
        if (std::memcmp(&host[n + i], &poison, sizeof(T)) != 0) return false;
    }
    for (size_t i = 0; i < n; ++i)
        if (std::isnan(wide(host[i]))) return false;
    return true;
}

static int failures = 0;

static void report(const char* name, const Shape& s, const char* what, double error, double allowed, bool whole, bool repeats) {
    const bool pass = error <= allowed && whole && repeats;
    if (!pass) ++failures;
    if (!pass || s.pairs() * s.tokens > 300000)
        std::printf("%s %-48s b%u h%u T%u d%u %s error %.2e (allowed %.0e)%s%s\n", pass ? "PASS" : "FAIL", name, s.batch, s.heads, s.tokens,
                    s.head_dim, what, error, allowed, whole ? "" : ", not all written or beyond the end", repeats ? "" : ", bits differ");
}

// Checks every variant on one shape, all heads or at most `sample` of them.
template <class T>
static void check(const Shape& s, const std::vector<Variant<Fwd>>& forwards, const std::vector<Variant<Bwd>>& backwards, double allowed,
                  float deviation, size_t sample) {
    Data<T> d(s, deviation);
    const auto qkv = copy(d.qkv, d.n_qkv);
    const auto dout = copy(d.dout, d.n_out);
    const unsigned hd = s.head_dim, n = s.tokens;
    const double scale = 1.0 / std::sqrt(static_cast<double>(hd));
    std::vector<size_t> pairs;
    for (size_t i = 0; i < std::min(sample, s.pairs()); ++i) pairs.push_back(s.pairs() <= sample ? i : i * (s.pairs() - 1) / (sample - 1));
    const auto at = [&](size_t pair, unsigned token, unsigned part) {
        return ((pair / s.heads * n + token) * 3 + part) * s.width() + pair % s.heads * hd;
    };
    const auto at_out = [&](size_t pair, unsigned token) { return (pair / s.heads * n + token) * s.width() + pair % s.heads * hd; };
    const auto rows = [&](size_t pair, unsigned part) {
        std::vector<double> m(static_cast<size_t>(n) * hd);
        for (unsigned i = 0; i < n; ++i)
            for (unsigned c = 0; c < hd; ++c) m[i * hd + c] = wide(qkv[at(pair, i, part) + c]);
        return m;
    };

    // Forward.
    std::vector<std::vector<double>> truth_out, truth_lse;
    for (const size_t pair : pairs) {
        const auto q = rows(pair, 0), k = rows(pair, 1), v = rows(pair, 2);
        std::vector<double> out(static_cast<size_t>(n) * hd), lse(n), score(n);
        for (unsigned i = 0; i < n; ++i) {
            double max = -INFINITY, sum = 0;
            for (unsigned j = 0; j < n; ++j) {
                double dot = 0;
                for (unsigned c = 0; c < hd; ++c) dot += q[i * hd + c] * k[j * hd + c];
                score[j] = dot * scale;
                max = std::max(max, score[j]);
            }
            for (unsigned j = 0; j < n; ++j) sum += score[j] = std::exp(score[j] - max);
            for (unsigned j = 0; j < n; ++j)
                for (unsigned c = 0; c < hd; ++c) out[i * hd + c] += score[j] / sum * v[j * hd + c];
            lse[i] = max + std::log(sum);
        }
        truth_out.push_back(out);
        truth_lse.push_back(lse);
    }
    const double lse_allowed = 2e-6;
    for (const auto& f : forwards) {
        if (!fits(f, s)) continue;
        d.poison_forward();
        run(f, s, d.forward(s));
        const auto out = copy(d.out, d.n_out + kGuard);
        const auto lse = copy(d.lse, d.n_lse + kGuard);
        d.poison_forward();
        run(f, s, d.forward(s));
        const auto again = copy(d.out, std::min(d.n_out, kCompared));
        const bool repeats = std::memcmp(again.data(), out.data(), again.size() * sizeof(T)) == 0;
        Error error, lse_error;
        for (size_t i = 0; i < pairs.size(); ++i) {
            for (unsigned r = 0; r < n; ++r) {
                for (unsigned c = 0; c < hd; ++c) error.add(wide(out[at_out(pairs[i], r) + c]), truth_out[i][r * hd + c]);
                lse_error.add(lse[pairs[i] * n + r], truth_lse[i][r]);
            }
        }
        report(f.name, s, "out", error.relative(0, 1), allowed, intact(out, d.n_out), repeats);
        report(f.name, s, "lse", lse_error.relative(1, n), lse_allowed, intact(lse, d.n_lse), true);
    }

    // Backward, from the first fitting forward's out and lse.
    for (const auto& f : forwards) {
        if (!fits(f, s)) continue;
        run(f, s, d.forward(s));
        break;
    }
    const auto out = copy(d.out, d.n_out);
    const auto lse = copy(d.lse, d.n_lse);
    std::vector<std::vector<double>> truth[3];
    for (const size_t pair : pairs) {
        const auto q = rows(pair, 0), k = rows(pair, 1), v = rows(pair, 2);
        std::vector<double> dq(q.size()), dk(q.size()), dv(q.size()), o(hd), g(hd);
        for (unsigned i = 0; i < n; ++i) {
            double delta = 0;
            for (unsigned c = 0; c < hd; ++c) {
                g[c] = wide(dout[at_out(pair, i) + c]);
                delta += g[c] * wide(out[at_out(pair, i) + c]);
            }
            for (unsigned j = 0; j < n; ++j) {
                double dot = 0, dp = 0;
                for (unsigned c = 0; c < hd; ++c) {
                    dot += q[i * hd + c] * k[j * hd + c];
                    dp += g[c] * v[j * hd + c];
                }
                const double p = std::exp(dot * scale - lse[pair * n + i]), ds = p * (dp - delta) * scale;
                for (unsigned c = 0; c < hd; ++c) {
                    dv[j * hd + c] += p * g[c];
                    dq[i * hd + c] += ds * k[j * hd + c];
                    dk[j * hd + c] += ds * q[i * hd + c];
                }
            }
        }
        truth[0].push_back(dq);
        truth[1].push_back(dk);
        truth[2].push_back(dv);
    }
    for (const auto& b : backwards) {
        if (!fits(b, s)) continue;
        d.poison();
        run(b, s, d.backward(s));
        const auto dqkv = copy(d.dqkv, d.n_qkv + kGuard);
        d.poison();
        run(b, s, d.backward(s));
        const auto again = copy(d.dqkv, std::min(d.n_qkv, kCompared));
        const bool repeats = std::memcmp(again.data(), dqkv.data(), again.size() * sizeof(T)) == 0;
        const bool whole = intact(dqkv, d.n_qkv);
        for (unsigned part = 0; part < 3; ++part) {
            Error error;
            for (size_t i = 0; i < pairs.size(); ++i)
                for (unsigned r = 0; r < n; ++r)
                    for (unsigned c = 0; c < hd; ++c) error.add(wide(dqkv[at(pairs[i], r, part) + c]), truth[part][i][r * hd + c]);
            const double floor = 0.3;  // few tokens: dq and dk are differences that nearly cancel
            report(b.name, s, part == 0 ? "dq" : part == 1 ? "dk" : "dv", error.relative(floor, pairs.size() * n * static_cast<double>(hd)),
                   allowed, whole, repeats);
        }
    }
}

static void* flush_buffer;
constexpr size_t kFlush = 128u << 20;

template <class Params>
static float time(const Variant<Params>& v, const Shape& s, const Params& p, int repeats) {
    cudaEvent_t start, stop;
    CHECK(cudaEventCreate(&start));
    CHECK(cudaEventCreate(&stop));
    std::vector<float> times;
    for (int i = 0; i < repeats + 3; ++i) {
        CHECK(cudaMemsetAsync(flush_buffer, i, kFlush));
        CHECK(cudaEventRecord(start));
        run(v, s, p);
        CHECK(cudaEventRecord(stop));
        CHECK(cudaEventSynchronize(stop));
        float ms;
        CHECK(cudaEventElapsedTime(&ms, start, stop));
        if (i >= 3) times.push_back(ms * 1000.0f);
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

template <class Params>
static void time_all(const std::vector<Variant<Params>>& variants, const Shape& s, const Params& p, double flop_a_score, double bytes,
                     int repeats) {
    for (const auto& v : variants) {
        if (!fits(v, s)) continue;
        std::string about;
        for (const auto& l : v.launches) {
            cudaFuncAttributes a;
            int blocks = 0;
            CHECK(cudaFuncGetAttributes(&a, l.kernel));
            CHECK(cudaFuncSetAttribute(l.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, l.shared(s)));
            CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, l.kernel, l.threads, l.shared(s)));
            char text[80];
            std::snprintf(text, sizeof text, " [%d regs, %zu local, %d blocks]", a.numRegs, a.localSizeBytes, blocks);
            about += text;
        }
        const bool slow = std::strstr(v.name, "any") || std::strstr(v.name, "f32");
        const float micros = time(v, s, p, slow ? std::min(repeats, 5) : repeats);
        const double flop = flop_a_score * s.pairs() * s.tokens * s.tokens * s.head_dim;
        std::printf("b%u h%u T%u %-48s %8.1f us %6.1f TFLOP/s %6.0f GB/s%s\n", s.batch, s.heads, s.tokens, v.name, micros,
                    flop / micros * 1e-6, bytes / micros * 1e-3, about.c_str());
    }
}

int main(int argc, char** argv) {
    cudaDeviceProp device;
    CHECK(cudaGetDeviceProperties(&device, 0));
    multiprocessors = static_cast<unsigned>(device.multiProcessorCount);
    seed = argc > 1 ? std::strtoull(argv[1], nullptr, 10)
                    : static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
    std::printf("%s, seed %llu\n", device.name, static_cast<unsigned long long>(seed));
    CHECK(cudaMalloc(&flush_buffer, kFlush));

    const auto f16 = forward_bf16();
    const auto b16 = backward_bf16();
    const auto f32 = forward_f32();
    const auto b32 = backward_f32();
    for (const unsigned t : {1u, 2u, 7u, 8u, 9u, 15u, 16u, 17u, 31u, 33u, 48u, 63u, 64u, 65u, 95u, 96u, 97u, 128u, 129u, 160u, 197u, 255u,
                             256u, 257u, 261u, 272u, 273u, 289u, 320u, 321u, 513u})
        check<uint16_t>({t % 3 + 1, t % 2 + 1, t, 64}, f16, b16, 1e-2, t % 4 == 1 ? 2.0f : 1.0f, 8);
    for (const unsigned hd : {1u, 5u, 16u, 32u, 36u, 63u, 65u, 80u, 96u, 127u, 128u})
        for (const unsigned t : {1u, 37u, 130u}) check<uint16_t>({2, 3, t, hd}, f16, b16, 1e-2, 1.0f, 8);
    for (const unsigned hd : {1u, 5u, 32u, 36u, 64u, 80u, 127u, 128u})
        for (const unsigned t : {1u, 3u, 63u, 64u, 65u, 130u, 257u}) check<float>({2, 2, t, hd}, f32, b32, 1e-5, 1.0f, 8);
    check<uint16_t>({256, 6, 257, 64}, f16, b16, 1e-2, 1.0f, 3);
    check<uint16_t>({8, 6, 1370, 64}, f16, b16, 1e-2, 1.0f, 2);
    check<float>({64, 6, 257, 64}, f32, b32, 1e-5, 1.0f, 3);
    std::printf("%s: %d checks failed\n", failures == 0 ? "PASS" : "FAIL", failures);

    for (const Shape s : {Shape{256, 6, 257, 64}, Shape{256, 12, 257, 64}, Shape{64, 16, 257, 64}, Shape{8, 6, 1370, 64}}) {
        const bool first = s.batch == 256 && s.heads == 6;
        const size_t unit = s.rows() * s.width() * 2;
        {
            Data<uint16_t> d(s, 1.0f);
            run(f16[1], s, d.forward(s));
            time_all(f16, s, d.forward(s), 4, 4.0 * unit, 20);
            time_all(b16, s, d.backward(s), 10, 8.0 * unit, 20);
        }
        if (first) {
            Data<float> d(s, 1.0f);
            run(f32[0], s, d.forward(s));
            time_all(f32, s, d.forward(s), 4, 8.0 * unit, 5);
            time_all(b32, s, d.backward(s), 10, 16.0 * unit, 5);
        }
    }
    CHECK(cudaDeviceSynchronize());
    std::printf("%s: %d checks failed\n", failures == 0 ? "PASS" : "FAIL", failures);
    return failures == 0 ? 0 : 1;
}
