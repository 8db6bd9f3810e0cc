"""Post-norm BERT encoder (Devlin et al. 2019): Chinese-CLIP's RoBERTa-wwm and AltCLIP's XLM-R.

The two differ in the epsilon of LayerNorm and in the first position.

Axes: b batch, l tokens, d width, w width of the state, e embedding.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jclip.config import kind_of
from jclip.errors import JclipError
from jclip.models.attention import Attention
from jclip.models.compute import Compute
from jclip.models.dropout import dropout, row_seeds
from jclip.models.placements import Placements
from jclip.models.spread import by_example, gathered, rows_of
from jclip.models.towers import REDUCED_WIDTH, LayerNumbers, StackedTower, TextTower, transformer_bytes
from jclip.models.transformer import LayerNorm, Mlp, attention_of, check_heads, run_stacks, run_to_token, two_stacks
from jclip.names import TokenizerKind
from jclip.ranges import Depth, Range, Rows, Size, check_ranges

Pooling = Literal["cls", "mean"]

_init = nn.initializers.normal(0.02)  # every matrix and every embedding (Devlin et al. 2019)


@kind_of(TextTower)
@dataclass(frozen=True)
class BertConfig(StackedTower, TextTower):
    """BERT encoder.

    Attributes:
      vocab_size: rows of the token embedding.
      width: width of the states.
      layers: number of layers.
      heads: number of attention heads; divides the width.
      intermediate: width of the MLPs' hidden layer.
      max_positions: rows of the position embedding.
      type_vocab_size: rows of the token-type embedding. Only the first is used, because a text is one sentence.
      pad_id: id of the padding, which follows the text and is masked.
      layer_norm_eps: epsilon of LayerNorm: 1e-12 in RoBERTa-wwm, 1e-5 in XLM-R.
      dropout: dropout rate on embeddings, attention probabilities and both branches of a layer.
      attention_dropout: dropout rate on attention probabilities; None for `dropout`.
      position_offset: "none" counts from 0 (BERT, and RoBERTa-wwm despite its name). "after_padding" gives the first
        token pad_id + 1 and padding pad_id (XLM-R).
    """

    vocab_size: Rows
    width: Size
    layers: Depth
    heads: Size
    intermediate: Annotated[int, Range(1, 2**20)]
    max_positions: Rows
    type_vocab_size: Rows
    pad_id: Annotated[int, Range(0, 2**31 - 1)]
    layer_norm_eps: Annotated[float, Range(0, 1, above=True)]
    dropout: float = 0.1
    attention_dropout: float | None = None
    position_offset: Literal["none", "after_padding"] = "none"
    takes_head: ClassVar[bool] = True
    head_sharding: ClassVar[Placements] = ((r"head/kernel", "fsdp,tensor"),)

    def __post_init__(self) -> None:
        check_ranges(self)
        check_heads(self.width, self.heads)
        for rate in (self.dropout, self.attention_dropout or 0.0):
            if not 0 <= rate < 1:
                raise JclipError(f"a dropout of {rate} is not possible: give 0 or more, and less than 1")
        if self.position_offset not in ("none", "after_padding"):
            raise JclipError(f"position_offset {self.position_offset!r} is unknown: choose none or after_padding")
        if self.pad_id >= self.vocab_size:
            raise JclipError(f"pad_id is {self.pad_id}, but vocab_size is {self.vocab_size}: give a smaller id")
        if self.longest < 1:
            raise JclipError(f"max_positions is {self.max_positions}, and pad_id {self.pad_id} leaves none: give more")

    @property
    def separable(self) -> bool:
        """See `Tower`."""
        return True

    @property
    def conversion(self) -> str:
        """Format of a BERT; XLM-R is a BERT whose positions start after the padding id."""
        return "xlm_r" if self.position_offset == "after_padding" else "bert"

    @property
    def longest(self) -> int:
        """See `TextTower`."""
        return self.max_positions - (self.pad_id + 1 if self.position_offset == "after_padding" else 0)

    @property
    def layer_numbers(self) -> LayerNumbers:
        """See `Tower`."""
        return ((r"[^/]*embedding.*", 0), (r".*", self.layers + 1))

    @property
    def tokenizer(self) -> TokenizerKind:
        """Kind of tokenizer; XLM-R's positions imply XLM-R's tokenizer."""
        return "xlmr" if self.position_offset == "after_padding" else "wordpiece"

    def build(
        self, embed_dim: int, compute: Compute, *, head_width: int | None = None, frozen_layers: int = 0
    ) -> "Bert":
        """See `TextTower`."""
        return Bert(self, embed_dim, head_width, compute, frozen_layers=frozen_layers)

    def reduced(self, vocab_size: int, context_length: int) -> "BertConfig":
        """Returns a small tower that keeps its positions."""
        del context_length
        width = REDUCED_WIDTH
        return replace(self, vocab_size=vocab_size, width=width, layers=2, heads=2, intermediate=2 * width)

    def activation_bytes(self, tokens: int) -> int:
        """See `TextTower`."""
        return transformer_bytes(tokens, self.width, self.heads, self.layers)


class Bert(nn.Module):
    """Encoder with a projection of its first token.

    Chinese-CLIP projects [CLS] directly. AltCLIP has a "head" before the projection: another norm and a linear map.

    Attributes:
      embed_dim: width of the projection; None for no projection.
      head_width: width of AltCLIP's head; None for no head.
      pooling: "cls" takes the first token's state. "mean" averages the tokens that are not padding, as sentence
        encoders do (Reimers & Gurevych 2019, section 3).
      frozen_layers: number of first layers whose parameters are in "first_layers/", so that a stage can freeze them.
    """

    config: BertConfig
    embed_dim: int | None
    head_width: int | None = None
    compute: Compute = Compute()
    pooling: Pooling = "cls"
    frozen_layers: int = 0

    def setup(self) -> None:
        """Declares the parameters and submodules."""
        config, width, dtype = self.config, self.config.width, self.compute.dtype
        self.word_embedding = self.param("word_embedding", _init, (config.vocab_size, width))
        self.position_embedding = self.param("position_embedding", _init, (config.max_positions, width))
        self.token_type_embedding = self.param("token_type_embedding", _init, (config.type_vocab_size, width))
        self.embedding_norm = LayerNorm(config.layer_norm_eps, dtype)
        self.layer = partial(PostNormLayer, config=config, compute=self.compute)
        self.first_layers, self.layers = two_stacks(self.layer, config.layers, self.frozen_layers, self.compute.remat)
        if self.head_width is not None:
            self.head_norm = LayerNorm(config.layer_norm_eps, dtype)
            self.head = nn.Dense(self.head_width, kernel_init=_init, dtype=dtype)
        if self.embed_dim is not None:
            projection_init = nn.initializers.normal((self.head_width or width) ** -0.5)
            self.projection = nn.Dense(self.embed_dim, use_bias=False, kernel_init=projection_init, dtype=dtype)

    def states(self, ids_bl: jax.Array, rows_b: jax.Array | None = None) -> jax.Array:
        """Returns all tokens' states after the last layer, (b, l, d). Raises JclipError if a text has too many tokens.

        `rows_b` are distinct integers of the examples. Dropout depends only on them and on the "dropout" key. None for
        no dropout.
        """
        stacks = (self.first_layers, self.layers)
        return run_stacks(stacks, self.layer, self.frozen_layers, *self._embedded(ids_bl, rows_b))

    def _embedded(self, ids_bl: jax.Array, rows_b: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """Returns the states before the first layer, (b, l, d), the lengths, and the layers' seeds of dropout."""
        check_text_length(ids_bl, self.config.longest)
        mask_bl = ids_bl != self.config.pad_id
        # An id outside the vocabulary gives NaN, not the nearest row, so that a wrong tokenizer is noticed.
        # Embeddings are summed in float32 even if they are stored in bfloat16.
        positions, table = self._positions(mask_bl), self.position_embedding
        if positions.shape[0] == 1:  # equal in all examples
            position_bld = jnp.take(gathered(table), positions, axis=0)
        else:
            position_bld = rows_of(table, positions)
        x_bld = rows_of(self.word_embedding, ids_bl).astype(jnp.float32)
        x_bld = by_example(x_bld + position_bld.astype(jnp.float32) + gathered(self.token_type_embedding)[0])
        embedding_seeds_b2, layer_seeds_lb2 = self._seeds(rows_b)
        x_bld = dropout(self.embedding_norm(x_bld), self.config.dropout, embedding_seeds_b2)
        lengths_b = (mask_bl * jnp.arange(1, mask_bl.shape[1] + 1)).max(axis=1)
        return x_bld, lengths_b, layer_seeds_lb2

    def state(self, ids_bl: jax.Array, rows_b: jax.Array | None = None) -> jax.Array:
        """Returns the states of texts before the projection, (b, w), which teacher learning compares."""
        if self.pooling == "mean":
            pooled_bd = mean_of_tokens(self.states(ids_bl, rows_b), ids_bl != self.config.pad_id)
        else:
            stacks = (self.first_layers, self.layers)
            pooled_bd = run_to_token(stacks, self.layer, self.frozen_layers, *self._embedded(ids_bl, rows_b))
        if self.head_width is None:
            return by_example(pooled_bd)
        return by_example(self.head(by_example(self.head_norm(by_example(pooled_bd)))))

    def __call__(self, ids_bl: jax.Array, rows_b: jax.Array | None = None) -> jax.Array:
        """Returns the embeddings of texts, (b, e), not L2-normalised; without a projection, their states."""
        state_bw = self.state(ids_bl, rows_b)
        return state_bw if self.embed_dim is None else self.projection(state_bw)

    def _seeds(self, rows_b: jax.Array | None) -> tuple[jax.Array, jax.Array] | tuple[None, None]:
        """Returns seeds of the dropout on the embedding, (b, 2), and in the layers, (l, b, 2)."""
        if rows_b is None or not (self.config.dropout or self.config.attention_dropout):
            return None, None
        seeds_pb2 = row_seeds(self.make_rng("dropout"), rows_b, 1 + self.config.layers)
        return seeds_pb2[0], seeds_pb2[1:]

    def _positions(self, mask_bl: jax.Array) -> jax.Array:
        if self.config.position_offset == "none":
            return jnp.arange(mask_bl.shape[1])[None]
        return jnp.cumsum(mask_bl, axis=1) * mask_bl + self.config.pad_id


class PostNormLayer(nn.Module):
    """Layer of BERT: attention and MLP each add their result to their input and normalise the sum.

    Dropout has three sites: the attention probabilities (0) and the two branches (1 and 2).
    """

    config: BertConfig
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self,
        x_bld: jax.Array,
        lengths_b: jax.Array,
        seeds_b2: jax.Array | None,
        wanted_bqd: jax.Array | None = None,
    ) -> tuple[jax.Array, None]:
        """Returns the states after this layer, and None for `nn.scan`; arguments as in `PreNormLayer`."""
        config, dtype = self.config, self.compute.dtype

        def add_and_norm(name: str, x_bld: jax.Array, branch_bld: jax.Array, site: int) -> jax.Array:
            branch_bld = dropout(branch_bld, config.dropout, seeds_b2, site)
            return LayerNorm(config.layer_norm_eps, dtype, name=name)(x_bld + branch_bld)

        rate = config.dropout if config.attention_dropout is None else config.attention_dropout
        compute = attention_of(wanted_bqd, self.compute)
        attention = Attention(config.heads, _init, _init, dropout=rate, compute=compute, name="attention")
        mlp = Mlp(config.intermediate, "gelu", _init, _init, dtype, name="mlp")
        x_bqd = x_bld if wanted_bqd is None else wanted_bqd
        x_bqd = add_and_norm("attention_norm", x_bqd, attention(x_bqd, x_bld, lengths_b, seeds_b2), 1)
        return by_example(add_and_norm("mlp_norm", x_bqd, mlp(x_bqd), 2)), None


def mean_of_tokens(states_bld: jax.Array, mask_bl: jax.Array) -> jax.Array:
    """Returns the mean state of the tokens that are not padding, (b, d); 0 for a text of padding alone."""
    counts_b1 = mask_bl.sum(axis=1, keepdims=True)
    weights_bl = (mask_bl / jnp.maximum(counts_b1, 1)).astype(states_bld.dtype)
    return jnp.einsum("bld,bl->bd", states_bld, weights_bl, precision=jax.lax.Precision.HIGHEST)


def check_text_length(ids_bl: jax.Array, longest: int) -> None:
    """Checks that every token has a position; raises JclipError if not. Indexing would silently clamp."""
    if ids_bl.shape[1] > longest:
        raise JclipError(f"texts are {ids_bl.shape[1]} tokens long, but this tower reads at most {longest}: cut them")
