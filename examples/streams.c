/* Many answers at once, batched by the model: streams MODEL PROMPT PROMPT ... */
#include <ingot.h>
#include <stdio.h>
#include <stdlib.h>

struct answer {
    ingot_stream *stream;
    char text[4096];
    size_t len;
};

/* On a thread of the model: keep what is said, do not wait. */
static int on_token(void *ctx, const ingot_token *token)
{
    struct answer *a = ctx;
    if (a->len + token->text_len >= sizeof a->text)
        return 1; /* enough */
    memcpy(a->text + a->len, token->text, token->text_len);
    a->len += token->text_len;
    return 0;
}

static int failed(const ingot_error *error)
{
    fprintf(stderr, "streams: %s: %s\n", ingot_status_name(error->status), error->text);
    return 1;
}

int main(int argc, char **argv)
{
    ingot_error error;
    ingot_model *model;
    ingot_sampling sampling;
    ingot_result result;
    int n = argc - 2;
    if (n < 1)
        return 2;
    struct answer *answers = calloc((size_t)n, sizeof *answers);
    if (!answers || ingot_model_open(&model, argv[1], NULL, &error) != INGOT_OK)
        return failed(&error);
    ingot_sampling_init(&sampling);
    sampling.max_tokens = 24;
    sampling.temperature = 0;
    for (int i = 0; i < n; i++) {
        ingot_request request;
        INGOT_INIT(request);
        request.prompt = argv[2 + i];
        request.sampling = &sampling;
        request.on_token = on_token;
        request.ctx = &answers[i];
        if (ingot_stream_start(&answers[i].stream, model, &request, &error) != INGOT_OK)
            return failed(&error);
    }
    for (int i = 0; i < n; i++) {
        INGOT_INIT(result);
        if (ingot_stream_wait(answers[i].stream, &result, &error) != INGOT_OK)
            return failed(&error);
        printf("%s|%.*s|%d tokens\n", argv[2 + i], (int)answers[i].len, answers[i].text, (int)result.output_tokens);
        ingot_stream_close(answers[i].stream);
    }
    ingot_model_close(model);
    free(answers);
    return 0;
}
