// The matrices and launches of the lab of the portable matrix products.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "cut.cuh"
#include "../../kernels/matmul_bf16.cu"
#include "../../kernels/lora_matmul_bf16.cu"
#include "../../kernels/matmul_f32.cu"
#include "../../kernels/lora_matmul_f32.cu"

#define CUDA(call)                                                                                       \
    do {                                                                                                 \
        const cudaError_t error = (call);                                                                \
        if (error != cudaSuccess) {                                                                      \
            std::printf("%s:%d %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(error));         \
            std::exit(2);                                                                                \
        }                                                                                                \
    } while (0)

static uint64_t state = 0x1234567;

static uint32_t random_bits() {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<uint32_t>(state >> 32);
}
static float uniform(float bound) { return (random_bits() / 2147483648.0f - 1.0f) * bound; }
static float from_bits(uint32_t bits) { float f; std::memcpy(&f, &bits, 4); return f; }
static uint16_t to_bf16(float f) {
    uint32_t bits;
    std::memcpy(&bits, &f, 4);
    if (std::isnan(f)) return 0xffff;
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
static float rounded(float f) { return from_bits(static_cast<uint32_t>(to_bf16(f)) << 16); }

constexpr size_t kGuard = 4096;
constexpr size_t kChecked = 1 << 22;  // matrices larger than this are only for timing

// A matrix on both sides; values rounded to bf16 if its type is; behind it and, with a stride, between its rows NaN.
struct Matrix {
    size_t rows = 0, cols = 0, stride = 0;
    bool f32 = true;
    std::vector<float> values;  // [rows, cols]
    unsigned char* device = nullptr;

    size_t width() const { return f32 ? 4 : 2; }
    size_t bytes() const { return rows * stride * width(); }
    uint64_t address() const { return reinterpret_cast<uint64_t>(device); }
    float at(size_t i, size_t j) const { return values[i * cols + j]; }
    void allocate(size_t r, size_t c, size_t s, bool is_f32) {
        rows = r, cols = c, stride = s, f32 = is_f32;
        CUDA(cudaMalloc(&device, bytes() + kGuard));
        CUDA(cudaMemset(device, 0xff, bytes() + kGuard));
    }
    void fill(size_t r, size_t c, size_t s, bool is_f32, float bound, size_t live_rows = ~0ull, size_t live_cols = ~0ull) {
        allocate(r, c, s, is_f32);
        if (rows * cols > kChecked) return fill_for_timing(bound);
        values.resize(rows * cols);
        for (size_t i = 0; i < rows; ++i) {
            for (size_t j = 0; j < cols; ++j) {
                const float value = i < live_rows && j < live_cols ? uniform(bound) : 0.0f;
                values[i * cols + j] = f32 ? value : rounded(value);
            }
        }
        std::vector<unsigned char> host(bytes(), 0xff);
        for (size_t i = 0; i < rows; ++i) {
            for (size_t j = 0; j < cols; ++j) {
                const float value = values[i * cols + j];
                if (f32) {
                    std::memcpy(&host[(i * stride + j) * 4], &value, 4);
                } else {
                    const uint16_t bits = to_bf16(value);
                    std::memcpy(&host[(i * stride + j) * 2], &bits, 2);
                }
            }
        }
        CUDA(cudaMemcpy(device, host.data(), bytes(), cudaMemcpyHostToDevice));
    }
    // A stretch of random values over and over, of a length that no row or tile shares.
    void fill_for_timing(float bound) {
        std::vector<unsigned char> host(1000003 * width());
        for (size_t i = 0; i < 1000003; ++i) {
            const float value = uniform(bound);
            const uint16_t bits = to_bf16(value);
            std::memcpy(&host[i * width()], f32 ? static_cast<const void*>(&value) : &bits, width());
        }
        for (size_t at = 0; at < bytes(); at += host.size()) {
            CUDA(cudaMemcpy(device + at, host.data(), std::min(host.size(), bytes() - at), cudaMemcpyHostToDevice));
        }
    }
    std::vector<unsigned char> raw() const {
        std::vector<unsigned char> host(bytes() + kGuard);
        CUDA(cudaMemcpy(host.data(), device, host.size(), cudaMemcpyDeviceToHost));
        return host;
    }
    // Values back; false if what lies behind was written.
    bool download() {
        const auto host = raw();
        values.resize(rows * cols);
        for (size_t i = 0; i < rows * cols; ++i) {
            if (f32) {
                std::memcpy(&values[i], &host[i * 4], 4);
            } else {
                uint16_t bits;
                std::memcpy(&bits, &host[i * 2], 2);
                values[i] = from_bits(static_cast<uint32_t>(bits) << 16);
            }
        }
        return std::all_of(host.begin() + bytes(), host.end(), [](unsigned char byte) { return byte == 0xff; });
    }
    void free() {
        if (device) CUDA(cudaFree(device));
        device = nullptr;
    }
};

enum Layout { NT, NN, TN };
enum Finish { PLAIN, GELU, SCALE_RESIDUAL, SCALE_RESIDUAL_F32, GELU_BACKWARD };
using Kernel = void (*)(PeftkGemmParams);

struct AdapterSpec {
    unsigned first_row, rows, rank;
    bool gain, given;
    unsigned rank_padded() const { return (rank + 15) / 16 * 16; }
};

struct Case {
    const char* name;
    Kernel kernel;
    bool f32;
    Layout layout;
    Finish finish;
    unsigned m, n, k;
    unsigned k2 = 0, gap_a = 0, gap_b = 0, splits = 1;
    bool bias = true;
    std::vector<AdapterSpec> adapters = {};
    unsigned tile = 128;
};

static unsigned ceil_div(unsigned a, unsigned b) { return (a + b - 1) / b; }

static void launch(const Case& c, const PeftkGemmParams& p) {
    unsigned columns = 0, at = 0;
    const bool lora = std::strncmp(c.name, "lora", 4) == 0;
    for (const auto& a : p.adapters) {
        if (a.rank_padded == 0) continue;
        columns += ceil_div(a.first_row - at, c.tile) + ceil_div(a.rows, c.tile);
        at = a.first_row + a.rows;
    }
    columns += ceil_div(c.n - at, c.tile);
    unsigned shared = 0;
    if (!c.f32) shared = lora ? gemm_bf16::product_bf16_shared_bytes<true>() : gemm_bf16::product_bf16_shared_bytes<false>();
    if (shared > 48 * 1024) CUDA(cudaFuncSetAttribute(c.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
    c.kernel<<<dim3(columns, ceil_div(c.m, c.tile), p.cut.pieces), 256, shared>>>(p);
    CUDA(cudaGetLastError());
}

static double gelu_of(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }
static double gelu_slope_of(double x) {
    return 0.5 * std::erfc(-x / std::sqrt(2.0)) + x * std::exp(-0.5 * x * x) / std::sqrt(2 * M_PI);
}

struct Data {
    Matrix a, b, a2, b2, c, bias, residual, gamma, aux, partial;
    Matrix adapter_a[3], adapter_b[3], gain[3], t[3];
    PeftkGemmParams p = {};

    explicit Data(const Case& s) {
        const float bound = 1.7f / std::sqrt(static_cast<float>(s.k));
        const bool f = s.f32;
        const unsigned a_rows = s.layout == TN ? s.k : s.m, a_cols = s.layout == TN ? s.m : s.k;
        const unsigned b_rows = s.layout == NT ? s.n : s.k, b_cols = s.layout == NT ? s.k : s.n;
        a.fill(a_rows, a_cols, a_cols + s.gap_a, f, 1.7f);
        b.fill(b_rows, b_cols, b_cols + s.gap_b, f, bound);
        p.a = a.address(), p.b = b.address(), p.lda = a.stride, p.ldb = b.stride;
        p.m = s.m, p.n = s.n, p.k = s.k, p.cut = one_granule(s.k, s.k);
        if (s.k2) {
            a2.fill(s.m, s.k2, s.k2, f, 1.0f);
            b2.fill(s.layout == NT ? s.n : s.k2, s.layout == NT ? s.k2 : s.n, s.layout == NT ? s.k2 : s.n, f, 0.3f);
            p.a2 = a2.address(), p.b2 = b2.address(), p.k2 = s.k2;
        }
        const bool stream_f32 = f || s.finish == SCALE_RESIDUAL_F32 || s.layout == TN;
        c.allocate(s.m, s.n, s.n, stream_f32);
        p.c = c.address();
        if (s.layout == TN && s.splits > 1) {
            partial.allocate(static_cast<size_t>(s.splits) * s.m, s.n, s.n, true);
            p.c = partial.address(), p.cut = one_granule(s.k, ceil_div(ceil_div(s.k, s.splits), 64) * 64);
        }
        if (s.bias && s.layout == NT) {
            bias.fill(1, s.n, s.n, true, 1.0f);
            p.bias = bias.address();
        }
        if (s.finish == SCALE_RESIDUAL || s.finish == SCALE_RESIDUAL_F32) {
            residual.fill(s.m, s.n, s.n, stream_f32, 2.0f);
            gamma.fill(1, s.n, s.n, true, 1.0f);
            p.residual = residual.address(), p.gamma = gamma.address();
        }
        if (s.finish == GELU) aux.allocate(s.m, s.n, s.n, f), p.aux = aux.address();
        if (s.finish == GELU_BACKWARD) aux.fill(s.m, s.n, s.n, f, 3.0f), p.aux = aux.address();
        for (size_t i = 0; i < s.adapters.size(); ++i) {
            const AdapterSpec& d = s.adapters[i];
            const unsigned rank = d.rank_padded();
            PeftkGemmAdapter& to = p.adapters[i];
            adapter_b[i].fill(d.rows, rank, rank, f, 0.5f, ~0ull, d.rank);
            to.b = adapter_b[i].address();
            if (d.given) {
                t[i].fill(s.m, rank, rank, f, 1.0f, ~0ull, d.rank);
            } else {
                adapter_a[i].fill(rank, s.k, s.k, f, bound, d.rank);
                to.a = adapter_a[i].address();
                t[i].allocate(s.m, rank, rank, f);
            }
            to.t = t[i].address();
            if (d.gain) gain[i].fill(1, d.rows, d.rows, true, 1.5f), to.gain = gain[i].address();
            to.scale = 1.25f + 0.5f * i, to.first_row = d.first_row, to.rows = d.rows, to.rank_padded = rank;
        }
    }
    ~Data() {
        for (Matrix* x : {&a, &b, &a2, &b2, &c, &bias, &residual, &gamma, &aux, &partial}) x->free();
        for (int i = 0; i < 3; ++i) adapter_a[i].free(), adapter_b[i].free(), gain[i].free(), t[i].free();
    }
    void run(const Case& s) {
        launch(s, p);
        if (s.layout == TN && s.splits > 1) {
            const size_t size = static_cast<size_t>(s.m) * s.n;
            matmul_reduce_f32<<<static_cast<unsigned>((size + 255) / 256), 256>>>(sum_of(p, partial.address(), c.address()));
            CUDA(cudaGetLastError());
        }
    }
};
