// Programmatic dependent launch: on Hopper a kernel's blocks come in when all of the kernel before have ended or are ending.
//
// gpu/module.rs launches every entry that has the wait in this way, and then nothing else keeps it apart from what was queued before. So
// EVERY entry calls start() first, with nothing but set-up before it: arithmetic, shared memory, barriers, tensor maps out of its own
// parameters. No thread returns before the wait. A kernel is done when its blocks are, and these have waited for the kernel before theirs:
// one wait covers all that came earlier.
// No block says "launch the next" (griddepcontrol.launch_dependents) before its end: the next kernel's blocks would be packed onto the few
// multiprocessors that are free first, and stay there.
#pragma once

namespace pdl {

// Waits until the kernel before is done and what it wrote is there. By every thread, before its first access to global memory.
__device__ __forceinline__ void start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// A load by the path for what nothing writes while a kernel is there. The kernel before may still be writing it when this one comes in: on
// Hopper a plain load.
template <typename T>
__device__ __forceinline__ T read(const T* source) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    return *source;
#else
    return __ldg(source);
#endif
}

}  // namespace pdl
