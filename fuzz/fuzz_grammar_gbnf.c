/* fuzz_grammar_gbnf - any bytes as a source: refused, or a grammar whose masks are what accepting the bytes says, and
 * that can always go on. */
#include "fuzz_grammar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_grammar(GRAMMAR_GBNF, data, size);
    return 0;
}
