#include "kernels/linear.h"

#include "kernels/bias_gradient.h"
#include "kernels/cpu/blas.h"

namespace voca::kernels::cpu {

template <typename T>
void linear_forward(const LinearForward<T>& args) {
  gemm_with_bias<T>({.transpose_b = Transpose::kYes,
                     .m = args.rows,
                     .n = args.out_features,
                     .k = args.in_features,
                     .a = args.x,
                     .lda = args.in_features,
                     .b = args.weight,
                     .ldb = args.in_features,
                     .c = args.y,
                     .ldc = args.out_features},
                    args.bias);
}

template <typename T>
void linear_backward(const LinearBackward<T>& args) {
  gemm<T>({.transpose_a = Transpose::kYes,
           .m = args.out_features,
           .n = args.in_features,
           .k = args.rows,
           .a = args.dy,
           .lda = args.out_features,
           .b = args.x,
           .ldb = args.in_features,
           .beta = 1,
           .c = args.dweight,
           .ldc = args.in_features});
  if (args.dx != nullptr) {
    gemm<T>({.m = args.rows,
             .n = args.in_features,
             .k = args.out_features,
             .a = args.dy,
             .lda = args.out_features,
             .b = args.weight,
             .ldb = args.in_features,
             .beta = static_cast<T>(args.accumulate_dx ? 1 : 0),
             .c = args.dx,
             .ldc = args.in_features});
  }
  if (args.dbias != nullptr) {
    bias_gradient<T>({.rows = args.rows, .columns = args.out_features, .dy = args.dy, .dbias = args.dbias});
  }
}

template void linear_forward(const LinearForward<float>&);
template void linear_forward(const LinearForward<double>&);
template void linear_backward(const LinearBackward<float>&);
template void linear_backward(const LinearBackward<double>&);

}  // namespace voca::kernels::cpu
