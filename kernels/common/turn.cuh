// A kernel's place in the queue.
//
// On Hopper a launch need not wait until the one before has ended (programmatic dependent launch): its blocks are placed as soon as all blocks of
// that one have begun and there is room, and the wait for that one's end and its writes happens here, in place. So what a launch costs before its
// first instruction is hidden, which counts where a kernel takes a few microseconds. Every entry calls this first, in every thread: the next
// kernel takes this one's end for the end of all before it. A launch that did not ask for it finds nothing to wait for.
#pragma once

__device__ __forceinline__ void wait_for_turn() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
