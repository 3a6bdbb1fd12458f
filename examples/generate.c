/* One call: generate MODEL PROMPT
 *   cc examples/generate.c $(pkg-config --cflags --libs ingot) -o generate && ./generate model.gguf "Once upon a time"
 */
#include <ingot.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    ingot_error error;
    ingot_sampling sampling;
    char *text;
    if (argc != 3) {
        fprintf(stderr, "usage: generate MODEL PROMPT\n");
        return 2;
    }
    ingot_sampling_init(&sampling);
    sampling.max_tokens = 40;
    sampling.has_seed = 1;
    sampling.seed = 7; /* the same seed gives the same answer, on any machine */
    if (ingot_generate(&text, argv[1], argv[2], &sampling, &error) != INGOT_OK) {
        fprintf(stderr, "generate: %s\n", error.text);
        return 1;
    }
    puts(text);
    ingot_free(text);
    return 0;
}
