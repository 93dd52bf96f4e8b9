// GELU's two functions in f32, cheap enough for a kernel that is bound by memory: 9 fma, a division and an exponential.
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
