/* mutant_rows - the reference kernels compiled again under other names: norm_rms__mutant beside norm_rms__ref
 *
 * Before including it, a test redefines the rule it breaks: FMA, lanes_sum, KV_SEGMENT.
 */
#ifndef TESTS_KERNELS_MUTANT_ROWS_H
#define TESTS_KERNELS_MUTANT_ROWS_H

#define norm_rms__ref       norm_rms__mutant
#define norm_layer__ref     norm_layer__mutant
#define norm_rms_dx__ref    norm_rms_dx__mutant
#define norm_layer_dx__ref  norm_layer_dx__mutant
#define norm_dw__ref        norm_dw__mutant
#define rope_turn__ref      rope_turn__mutant
#define map_fn__ref         map_fn__mutant
#define map_fn_back__ref    map_fn_back__mutant
#define map_glu__ref        map_glu__mutant
#define map_glu_back__ref   map_glu_back__mutant
#define map_add__ref        map_add__mutant
#define map_function__ref   map_function__mutant
#define kv_store__ref       kv_store__mutant
#define attend__ref         attend__mutant
#define attend_part__ref    attend_part__mutant
#define attend_merge__ref   attend_merge__mutant
#define attend_back__ref    attend_back__mutant
#define lse_rows__ref       lse_rows__mutant
#define loss_rows__ref      loss_rows__mutant
#define adamw_range__ref    adamw_range__mutant
#define squares_chunks__ref squares_chunks__mutant
#define find_above__ref     find_above__mutant
#define row_maxima__ref     row_maxima__mutant
#define collect_from__ref   collect_from__mutant
#define mass_between__ref   mass_between__mutant
#include "../../src/kernels/ref/norm_ref.c"
#include "../../src/kernels/ref/map_ref.c"
#include "../../src/kernels/ref/loss_ref.c"
#include "../../src/kernels/ref/attend_ref.c"
#include "../../src/kernels/ref/attend_back_ref.c"

#endif
