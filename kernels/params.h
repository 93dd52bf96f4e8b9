/* The launch parameters of every kernel, shared with Rust: one struct an entry, passed by value as its only argument.
 *
 * Plain C with fixed widths. Device addresses are uint64_t, so that the layout is the same for nvcc, for the host compiler and
 * for Rust. Members stand in order of size and a struct's size is a multiple of 8: what padding is needed is a member, never the
 * compiler's, because Rust sends the struct as bytes. After a change run `make params`; a test compares the two sides.
 */
#ifndef PEFTK_PARAMS_H
#define PEFTK_PARAMS_H

#include <stdint.h>

#include "params/cut.h"
#include "params/gemm.h"
#include "params/sm90_gemm.h"
#include "params/attention.h"
#include "params/norm.h"
#include "params/pointwise.h"
#include "params/tokens.h"
#include "params/loss.h"
#include "params/optimizer.h"
#include "params/adapter.h"
#include "params/dora.h"
#include "params/dropout.h"
#include "params/augment.h"

#endif
