// GELU's two functions in f32, cheap enough for a kernel that is bound by memory: 9 fma, a division and an exponential. Where the result is
// rounded to bf16, gelu_for_bf16 and gelu_slope_for_bf16 take half the instructions: at 1536 columns a token they are what a product's
// epilogue consists of. A fused kernel uses the same one as the separate kernel does.
#pragma once

// The standard normal's distribution function and density at x. On the negative side cdf(-|x|) = exp(-x^2 / 2) q(1 / (1 + 0.3 |x|)),
// q a polynomial fitted for the least relative error (1.5e-7), so that the tail keeps its digits; the other side is 1 minus it. The
// exponential is the density's own.
__device__ __forceinline__ void normal(float x, float& cdf, float& density) {
    const float size = fabsf(x);
    const float bell = __expf(-0.5f * x * x);
    const float t = __fdividef(1.0f, fmaf(0.3f, size, 1.0f));
    float q = 0.03567391633987427f;
    q = fmaf(q, t, -0.15719914436340332f);
    q = fmaf(q, t, 0.20634613931179047f);
    q = fmaf(q, t, -0.05367636680603027f);
    q = fmaf(q, t, 0.12855753302574158f);
    q = fmaf(q, t, 0.0999148041009903f);
    q = fmaf(q, t, 0.12075373530387878f);
    q = fmaf(q, t, 0.11962931603193283f);
    const float tail = bell * (q * t);
    cdf = x > 0.0f ? 1.0f - tail : tail;
    density = 0.3989422804014327f * bell;
}

// x cdf(x).
__device__ __forceinline__ float gelu(float x) {
    float cdf, density;
    normal(x, cdf, density);
    return x * cdf;
}

// Its derivative, cdf(x) + x density(x).
__device__ __forceinline__ float gelu_slope(float x) {
    float cdf, density;
    normal(x, cdf, density);
    return fmaf(x, density, cdf);
}

// 2^x with x in the negative range where it is used: 0 below -126.
__device__ __forceinline__ float exp2_flushed(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// sqrt(log2(e) / 2): exp(-x^2 / 2) = 2^-(kBell x)^2.
constexpr float kBell = 0.8493218002880191f;

// Several at once, step by step over all of them: a warp that is alone has nothing else to do while it waits for a sum.
template <int kCount, int kTerms>
__device__ __forceinline__ void tails(const float (&x)[kCount], const float (&terms)[kTerms], float (&q)[kCount], float (&bell)[kCount]) {
    float size[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
        size[i] = fminf(fabsf(x[i]), 8.0f);
        bell[i] = kBell * x[i];
        q[i] = fmaf(terms[0], size[i], terms[1]);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) bell[i] = exp2_flushed(-bell[i] * bell[i]);
#pragma unroll
    for (int term = 2; term < kTerms; ++term) {
#pragma unroll
        for (int i = 0; i < kCount; ++i) q[i] = fmaf(q[i], size[i], terms[term]);
    }
}

// x cdf(x) = max(x, 0) - |x| cdf(-|x|), where |x| cdf(-|x|) is exp(-x^2 / 2) times a polynomial in |x|, fitted to be within 5e-4 of it or
// 1e-6, whichever is more: a quarter of what the rounding to bf16 may add. Beyond 8 the exponential is below 2e-14.
template <int kCount>
__device__ __forceinline__ void gelu_for_bf16(float (&x)[kCount]) {
    constexpr float kTail[7] = {0.0002330205315956846f, -0.0036772352177649736f, 0.02454395219683647f, -0.09260675311088562f,
                                0.2263113260269165f,    -0.3929505944252014f,    0.4996553361415863f};
    float q[kCount], bell[kCount];
    tails(x, kTail, q, bell);
#pragma unroll
    for (int i = 0; i < kCount; ++i) x[i] = fmaf(-(q[i] * fminf(fabsf(x[i]), 8.0f)), bell[i], fmaxf(x[i], 0.0f));
}

// y *= gelu'(x), in the same way, within 5e-6: on the negative side exp(-x^2 / 2) times a polynomial, on the other 1 minus it.
template <int kCount>
__device__ __forceinline__ void gelu_slope_for_bf16(const float (&x)[kCount], float (&y)[kCount]) {
    constexpr float kTail[8] = {-0.0001685567549429834f, 0.002319063525646925f, -0.013923577964305878f, 0.04993998259305954f,
                                -0.125826895236969f,     0.24795961380004883f,  -0.7976623773574829f,   0.49999603629112244f};
    float q[kCount], bell[kCount];
    tails(x, kTail, q, bell);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
        const float side = q[i] * bell[i];
        y[i] *= x[i] > 0.0f ? 1.0f - side : side;
    }
}
