/* Launch parameters of the losses (kernels/loss.cu). */
#ifndef PEFTK_PARAMS_LOSS_H
#define PEFTK_PARAMS_LOSS_H

#include <stdint.h>

/** Softmax cross-entropy with label smoothing: a loss a row, and dlogits. */
struct PeftkCrossEntropyParams {
    /** First class of the logits, `[rows, classes]` f32 with row stride `ld`, read. */
    uint64_t logits;
    /** The rows' classes, `[rows]` i32, read; negative: the row has none, its loss and gradient are 0. */
    uint64_t labels;
    /** The rows' losses, `[rows]` f32, written, not yet divided. */
    uint64_t partial;
    /** dL/dlogits, laid out as the logits, written; it may be the logits themselves. */
    uint64_t dlogits;
    /** What the loss of a row of each class is multiplied by, `[classes]` f32, read; 0: nothing is. */
    uint64_t weights;
    /** Weight of the even distribution in the target. */
    float smoothing;
    /** What the loss is divided by. */
    float denominator;
    /** Rows. */
    uint32_t rows;
    /** Classes. */
    uint32_t classes;
    /** Row stride of logits and dlogits, elements. */
    uint32_t ld;
    /** 0. */
    uint32_t padding;
};

/** Losses of sigmoids against targets of the logits' shape: a loss a row, and dlogits. */
struct PeftkSigmoidLossParams {
    /** First column of the logits, `[rows, cols]` f32 with row stride `ld`, read. */
    uint64_t logits;
    /** Targets `[rows, cols]` f32 without gaps, read; negative entries count for nothing. */
    uint64_t targets;
    /** The rows' losses, `[rows]` f32, written, not yet divided. */
    uint64_t partial;
    /** dL/dlogits, laid out as the logits, written; it may be the logits themselves. */
    uint64_t dlogits;
    /** What the loss is divided by. */
    float denominator;
    /** Asymmetric loss: focusing of positives, gamma+. */
    float gamma_positive;
    /** Asymmetric loss: focusing of negatives, gamma-. */
    float gamma_negative;
    /** Asymmetric loss: how far negatives' probabilities are shifted down. */
    float clip;
    /** Asymmetric loss: weight of the positives. */
    float positive_weight;
    /** Rows. */
    uint32_t rows;
    /** Columns. */
    uint32_t cols;
    /** Row stride of logits and dlogits, elements. */
    uint32_t ld;
};

/** Softmax heads side by side, and sigmoids behind them: a loss a row, and dlogits. */
struct PeftkTreeLossParams {
    /** Logits `[rows, cols]` f32 without gaps, read. */
    uint64_t logits;
    /** Targets of their shape, read: in a head at most one entry is 1; behind the heads negative entries count for nothing. */
    uint64_t targets;
    /** The first column of each head and of what is behind the last, `[heads + 1]` i32, read. */
    uint64_t begins;
    /** The rows' losses, `[rows]` f32, written, not yet divided. */
    uint64_t partial;
    /** dL/dlogits, written; it may be the logits themselves. */
    uint64_t dlogits;
    /** What the loss is divided by. */
    float denominator;
    /** Weight of the even distribution in a head's target. */
    float smoothing;
    /** Asymmetric loss: focusing of positives, gamma+. */
    float gamma_positive;
    /** Asymmetric loss: focusing of negatives, gamma-. */
    float gamma_negative;
    /** Asymmetric loss: how far negatives' probabilities are shifted down. */
    float clip;
    /** Asymmetric loss: weight of the positives. */
    float positive_weight;
    /** Rows. */
    uint32_t rows;
    /** Columns. */
    uint32_t cols;
    /** Heads. */
    uint32_t heads;
    /** 0. */
    uint32_t padding;
};

/** The loss from its rows'. */
struct PeftkLossSumParams {
    /** `[count]` f32, read. */
    uint64_t partial;
    /** The loss, `[1]` f32, written. */
    uint64_t loss;
    /** What each is divided by. */
    float denominator;
    /** Rows. */
    uint32_t count;
    /** 1: added to what is there; 0: written over it. */
    uint32_t accumulate;
    /** 0. */
    uint32_t padding;
};

#endif
