"""The post-norm BERT encoder (Devlin et al. 2019): Chinese-CLIP's RoBERTa-wwm and AltCLIP's XLM-R.

The two differ in the LayerNorm's epsilon and in where positions begin. Axes: b batch, l tokens, d width, w width of
the state, e embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from jclip.errors import JclipError
from jclip.models.attention import Attention, Implementation
from jclip.models.dropout import dropout, row_seeds
from jclip.models.remat import Remat
from jclip.models.spread import by_example
from jclip.models.transformer import LayerNorm, Mlp, check_heads, run_stacks, two_stacks
from jclip.ranges import Depth, Range, Rows, Size, check_ranges

Pooling = Literal["cls", "mean"]

_init = nn.initializers.normal(0.02)  # every matrix and every embedding (Devlin et al. 2019)


@dataclass(frozen=True)
class BertConfig:
    """A BERT.

    Attributes:
      vocab_size: rows of the token embedding.
      width: of the states.
      layers: how many.
      heads: of attention; they divide the width.
      intermediate: width of the perceptrons' hidden layer.
      max_positions: rows of the position embedding.
      type_vocab_size: rows of the token-type embedding, of which only the first is used: one sentence at a time.
      pad_id: the token after the end of a text: nothing looks at it there.
      layer_norm_eps: 1e-12 in RoBERTa-wwm, 1e-5 in XLM-R.
      dropout: rate, in training, on embeddings, attention probabilities and both branches of a layer.
      attention_dropout: rate on attention probabilities where it is another; None for the same.
      position_offset: "none" counts from 0 (BERT, and RoBERTa-wwm despite its name); "after_padding" gives the first
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
    def conversion(self) -> str:
        """Name under which `jclip.conversion` knows the tower's parameters; empty if it does not."""
        return "bert"

    @property
    def longest(self) -> int:
        """The longest text, tokens."""
        return self.max_positions - (self.pad_id + 1 if self.position_offset == "after_padding" else 0)


class Bert(nn.Module):
    """The encoder with what the papers put on its first token.

    Chinese-CLIP projects [CLS] as it is; AltCLIP first has a further norm and a linear map, the "head".

    Attributes:
      embed_dim: of the projection; None for none.
      head_width: what AltCLIP's head maps to; None for no head.
      pooling: "cls" takes the first token's state; "mean" averages the tokens that are not padding, as sentence
        encoders do (Reimers & Gurevych 2019, section 3).
      first: so many layers have their parameters apart, under "first_layers/", so that a stage can freeze them.
      attention: what computes it, see `jclip.models.attention.attend`.
      dtype: of the computation; parameters are float32.
      remat: what of a layer the backward pass computes again.
    """

    config: BertConfig
    embed_dim: int | None
    head_width: int | None = None
    dtype: Dtype = jnp.float32
    remat: Remat = "none"
    pooling: Pooling = "cls"
    first: int = 0
    attention: Implementation = "auto"

    def setup(self) -> None:
        """The parameters and the parts."""
        config, width = self.config, self.config.width
        self.word_embedding = self.param("word_embedding", _init, (config.vocab_size, width))
        self.position_embedding = self.param("position_embedding", _init, (config.max_positions, width))
        self.token_type_embedding = self.param("token_type_embedding", _init, (config.type_vocab_size, width))
        self.embedding_norm = LayerNorm(config.layer_norm_eps, self.dtype)
        self.first_layers, self.layers = two_stacks(
            PostNormLayer,
            config.layers,
            self.first,
            self.remat,
            config=config,
            dtype=self.dtype,
            attention=self.attention,
        )
        if self.head_width is not None:
            self.head_norm = LayerNorm(config.layer_norm_eps, self.dtype)
            self.head = nn.Dense(self.head_width, kernel_init=_init, dtype=self.dtype)
        if self.embed_dim is not None:
            projection_init = nn.initializers.normal((self.head_width or width) ** -0.5)
            self.projection = nn.Dense(self.embed_dim, use_bias=False, kernel_init=projection_init, dtype=self.dtype)

    def states(self, ids_bl: jax.Array, rows_b: jax.Array | None = None) -> jax.Array:
        """States of all tokens after the last layer, (b, l, d).

        Args:
          ids_bl: token ids.
          rows_b: integers that tell the examples apart: what is dropped depends on the "dropout" key and on them alone.
            None drops nothing.

        Raises:
          JclipError: more tokens than positions.
        """
        check_text_length(ids_bl, self.config.longest)
        mask_bl = ids_bl != self.config.pad_id
        # Out of the vocabulary is NaN, not the nearest row: a wrong tokenizer shows at once.
        # Tables that are kept in bfloat16 are summed in float32 all the same.
        position_bld = jnp.take(self.position_embedding, self._positions(mask_bl), axis=0).astype(jnp.float32)
        x_bld = jnp.take(self.word_embedding, ids_bl, axis=0).astype(jnp.float32)
        x_bld += position_bld + self.token_type_embedding[0]
        of_embedding_b2, of_layers_lb2 = self._seeds(rows_b)
        x_bld = dropout(self.embedding_norm(x_bld), self.config.dropout, of_embedding_b2)
        stacks = (self.first_layers, self.layers)
        lengths_b = (mask_bl * jnp.arange(1, mask_bl.shape[1] + 1)).max(axis=1)
        return run_stacks(stacks, self.first, x_bld, lengths_b, of_layers_lb2)

    def state(self, ids_bl: jax.Array, rows_b: jax.Array | None = None) -> jax.Array:
        """The state of a text before the projection, (b, w): what a teacher teaches; arguments as in `states`."""
        pooled_bd = _POOLS[self.pooling](self.states(ids_bl, rows_b), ids_bl != self.config.pad_id)
        return pooled_bd if self.head_width is None else by_example(self.head(self.head_norm(pooled_bd)))

    def __call__(self, ids_bl: jax.Array, rows_b: jax.Array | None = None) -> jax.Array:
        """Embeddings of texts, (b, e), not L2-normalised; the states themselves where there is no projection."""
        state_bw = self.state(ids_bl, rows_b)
        return state_bw if self.embed_dim is None else self.projection(state_bw)

    def _seeds(self, rows_b: jax.Array | None) -> tuple[jax.Array, jax.Array] | tuple[None, None]:
        """Dropout's: of the embedding, (b, 2), and of the layers, (l, b, 2)."""
        if rows_b is None or not (self.config.dropout or self.config.attention_dropout):
            return None, None
        seeds_pb2 = row_seeds(self.make_rng("dropout"), rows_b, 1 + self.config.layers)
        return seeds_pb2[0], seeds_pb2[1:]

    def _positions(self, mask_bl: jax.Array) -> jax.Array:
        if self.config.position_offset == "none":
            return jnp.arange(mask_bl.shape[1])[None]
        return jnp.cumsum(mask_bl, axis=1) * mask_bl + self.config.pad_id


class PostNormLayer(nn.Module):
    """A layer of BERT: each half is added to its input, and the sum normalised.

    Dropout draws at three sites: the attention's probabilities (0) and the two branches (1 and 2).
    """

    config: BertConfig
    dtype: Dtype = jnp.float32
    attention: Implementation = "auto"

    @nn.compact
    def __call__(self, x_bld: jax.Array, lengths_b: jax.Array, seeds_b2: jax.Array | None) -> tuple[jax.Array, None]:
        """The states after this layer, and nothing: the form that a scan wants."""
        config = self.config

        def add_and_norm(name: str, x_bld: jax.Array, branch_bld: jax.Array, site: int) -> jax.Array:
            branch_bld = dropout(branch_bld, config.dropout, seeds_b2, site)
            return LayerNorm(config.layer_norm_eps, self.dtype, name=name)(x_bld + branch_bld)

        rate = config.dropout if config.attention_dropout is None else config.attention_dropout
        how: dict[str, Any] = {"dropout": rate, "dtype": self.dtype, "implementation": self.attention}
        attention = Attention(config.heads, _init, _init, **how, name="attention")
        mlp = Mlp(config.intermediate, "gelu", _init, _init, self.dtype, name="mlp")
        x_bld = add_and_norm("attention_norm", x_bld, attention(x_bld, x_bld, lengths_b, seeds_b2), 1)
        return by_example(add_and_norm("mlp_norm", x_bld, mlp(x_bld), 2)), None


def _first(states_bld: jax.Array, mask_bl: jax.Array) -> jax.Array:
    del mask_bl
    return states_bld[:, 0]


def _mean(states_bld: jax.Array, mask_bl: jax.Array) -> jax.Array:
    counts_b1 = mask_bl.sum(axis=1, keepdims=True)
    weights_bl = (mask_bl / jnp.maximum(counts_b1, 1)).astype(states_bld.dtype)  # a text of padding alone is 0, not NaN
    return jnp.einsum("bld,bl->bd", states_bld, weights_bl, precision=jax.lax.Precision.HIGHEST)


_POOLS: dict[Pooling, Callable[[jax.Array, jax.Array], jax.Array]] = {"cls": _first, "mean": _mean}


def check_text_length(ids_bl: jax.Array, longest: int) -> None:
    """Checks that there is a position for every token; an array would silently clamp the index.

    Raises:
      JclipError: there is not.
    """
    if ids_bl.shape[1] > longest:
        raise JclipError(f"texts are {ids_bl.shape[1]} tokens long, but this tower reads at most {longest}")
